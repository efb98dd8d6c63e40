"""LitServe: two workers, batches of up to 32 requests, ZeroMQ between its processes.

python litserve_app.py --port PORT
"""

import sys

import litserve
import orjson
from fastapi import Response
from scoring import Request, score_requests


class Scoring(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """There is no model to load."""

    def batch(self, inputs: list[Request]) -> list[Request]:
        return list(inputs)

    def predict(self, x: list[Request]) -> list[dict]:
        return score_requests(x)

    def unbatch(self, output: list[dict]) -> list[dict]:
        return output

    def encode_response(self, output: dict) -> Response:
        return Response(orjson.dumps(output), media_type="application/json")


if __name__ == "__main__":
    api = Scoring(max_batch_size=32, batch_timeout=0.002, api_path="/score")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=2, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[-1]),
        num_api_servers=2,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
