"""Ray Serve: two replicas with dynamic batching behind its HTTP proxy.

python ray_app.py --port PORT
"""

import asyncio
import signal
import sys
from typing import Any

import orjson
import ray
from ray import serve
from scoring import Request, score_requests
from starlette.requests import Request as Http
from starlette.responses import Response


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False},
)
class Scoring:
    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def score(self, requests: list[Request]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(score_requests, requests)

    async def __call__(self, http: Http) -> Response:
        answer = await self.score(orjson.loads(await http.body()))
        return Response(orjson.dumps(answer), media_type="application/json")


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
        _node_ip_address="127.0.0.1",  # otherwise it asks the network which address it has
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[-1])},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Scoring.bind(), route_prefix="/score")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
