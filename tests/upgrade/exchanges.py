"""What client and service of a release say to each other, recorded: ``VERSION.json`` beside this.

    python tests/upgrade/exchanges.py URL

records against the service of the release that is about to be made, in place of the last record.
"""

import base64
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

import lossclient

HERE = Path(__file__).resolve().parent
OURS = ("content-type", "content-encoding", "accept", "user-agent", "x-request-id", "vary")
"""Headers that are recorded; the others are the connection's."""
FRAME = pa.table(
    {
        "unique_id": ["a", "a", "b", "b", "b"],
        "cutoff": pa.array([0, 0, 0, 0, 0], pa.timestamp("us")),
        "ds": pa.array([1, 2, 1, 2, 3], pa.timestamp("us")),
        "y": [100.0, 120.0, 0.0, None, 3.0],
        "Naive": [102.0, 118.5, 0.5, 2.0, 3.0],
        "AutoETS": [99.0, 99.0, 0.0, 2.0, 2.5],
    }
)
PREDICTION = [[102.0, 118.5], [0.5, -1.0, 7.0]]
TARGET = [[100.0, 120.0], [0.0, 1.0, 7.0]]
MULTIVARIATE = np.arange(12, dtype=np.float32).reshape(1, 4, 3)


def _in_zstd(client: lossclient.Client) -> Any:
    options = {"transport": client.transport, "retries": client.retries, "compression": "zstd"}
    with lossclient.Client(client.base_url, **options) as compressing:
        return compressing.score_series(PREDICTION, TARGET)


CALLS: dict[str, Callable[[lossclient.Client], Any]] = {
    "a frame": lambda client: client.score(FRAME, missing="skip"),
    "a frame with gradients": lambda client: client.score(
        FRAME, missing="propagate", gradients=True, losses=["mae", "smape"]
    ),
    "series": lambda client: client.score_series(PREDICTION, TARGET, ids=["a", "b"]),
    "series by every option": lambda client: client.score_series(
        PREDICTION, TARGET, losses=["smape", "mape"], gradients=True, missing="skip",
        zero_division="skip", block_denom_grad=False,
    ),
    "series of channels": lambda client: client.score_series(
        MULTIVARIATE, MULTIVARIATE[:, ::-1], gradients=True
    ),
    "series in zstd": _in_zstd,
    "no series": lambda client: client.score_series([], []),
    "a missing element": lambda client: client.score_series([[1.0, None]], [[1.0, 2.0]]),
    "a loss that is none": lambda client: client.score_series([[1.0]], [[1.0]], losses=["r2"]),
}  # fmt: skip


def outcome(call: Callable[[lossclient.Client], Any], client: lossclient.Client) -> Any:
    """Return what a caller sees, in values that can be compared."""
    try:
        result = call(client)
    except lossclient.InvalidValues as error:
        return type(error).__name__, [(fault.side, fault.position) for fault in error.errors]
    if isinstance(result, pa.Table):
        return result.to_pydict()
    columns = result.losses, result.masked, result.gradients or {}
    return [
        {name: np.asarray(values).tolist() for name, values in part.items()} for part in columns
    ]


def recorded() -> dict[str, Any]:
    """Return the record of the last release."""
    (path,) = HERE.glob("*.json")
    return json.loads(path.read_text())


def _kept(headers: httpx.Headers) -> dict[str, str]:
    return {name: headers[name] for name in OURS if name in headers}


class Recorder(httpx.BaseTransport):
    """Passes requests on, and keeps them with their answers."""

    def __init__(self) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self._network = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        answer = self._network.handle_request(request)
        content = answer.read()
        self.exchanges.append(
            {
                "path": request.url.path,
                "query": dict(request.url.params),
                "headers": _kept(request.headers),
                "body": base64.b64encode(body).decode(),
                "status": answer.status_code,
                "answer_headers": _kept(answer.headers),
                "answer": base64.b64encode(content).decode(),
            }
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


def main(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    options = document["components"]["schemas"]["QueryOptions"]["properties"]
    record: dict[str, Any] = {
        "version": version("lossclient"),
        "options": list(options),
        "exchanges": {},
    }
    for name, call in CALLS.items():
        recorder = Recorder()
        with lossclient.Client(url, transport=recorder) as client:
            outcome(call, client)
        record["exchanges"][name] = recorder.exchanges
    for old in HERE.glob("*.json"):
        old.unlink()
    path = HERE / f"{record['version']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
