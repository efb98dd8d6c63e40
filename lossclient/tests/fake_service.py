"""A service in memory: reads the wire and computes in plain numpy, one series after the other."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"


def losses_of(p, y):
    """The contract for finite numbers, as it is written: (loss, masked, gradient) by name."""
    p, y = np.asarray(p, float), np.asarray(y, float)
    sign, weight = np.sign(p - y), 1 / max(len(p), 1)
    with np.errstate(all="ignore"):
        ape, sape = np.abs((y - p) / y), np.abs(y - p) / (np.abs(y) + np.abs(p))
        slopes = sign / np.abs(y), sign / (np.abs(y) + np.abs(p))
    is_finite = np.isfinite(ape), np.isfinite(sape)
    return {
        "mae": (np.abs(y - p).mean(), None, sign * weight),
        "mape": (
            np.where(is_finite[0], ape, 0).mean(),
            int((~is_finite[0]).sum()),
            np.where(is_finite[0], slopes[0], 0) * weight,
        ),
        "smape": (
            np.where(is_finite[1], sape, 0).mean(),
            int((~is_finite[1]).sum()),
            np.where(is_finite[1], slopes[1], 0) * weight,
        ),
    }


def scores_of(request):
    """Score one request; returns the columns of its answer."""
    table = pa.ipc.open_stream(request.content).read_all()
    params = request.url.params
    (key,) = params["group_columns"].split(",")
    models = [name for name in table.column_names if name not in (key, "y")]
    numbers, ys = table.column(key).to_pylist(), table.column("y").to_numpy()
    series = list(dict.fromkeys(numbers))
    places = [[row for row, number in enumerate(numbers) if number == first] for first in series]
    scored = [
        losses_of(table.column(model).to_numpy()[rows], ys[rows])
        for rows in places
        for model in models
    ]
    columns = {
        key: pa.array(np.repeat(series, len(models)), table.schema.field(key).type),
        "model": pa.array(models * len(series), pa.string()),
        "length": pa.array([len(rows) for rows in places for _ in models], pa.int64()),
    }
    names = params.get("losses", "mae,mape,smape").split(",")
    names = [name.partition(":")[0] for name in names]
    for name in names:
        columns[name] = pa.array([losses[name][0] for losses in scored], pa.float64())
    for name in names:
        if name != "mae":
            columns[f"{name}_masked"] = pa.array([losses[name][1] for losses in scored], pa.int64())
    if params["gradients"] == "true":
        types = {field.type for field in table.schema if field.name != key}
        kind = pa.float32() if types == {pa.float32()} else pa.float64()
        for name in names:
            columns[f"{name}_gradient"] = pa.array(
                [losses[name][2] for losses in scored], pa.large_list(kind)
            )
    return pa.table(columns)


def answer(request):
    """Answer one request."""
    return answer_with(scores_of(request))


def answer_with(table):
    """Answer with these columns."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return httpx.Response(
        200, content=sink.getvalue().to_pybytes(), headers={"content-type": ARROW}
    )


def problem(status, *, retryable=False, headers=None, errors=(), **more):
    """Answer with a problem document, as the service does."""
    document = {
        "type": "about:blank",
        "title": "No",
        "status": status,
        "detail": "for a reason",
        "errors": list(errors),
        "request_id": "r1",
        "retryable": retryable,
        **more,
    }
    headers = {"content-type": "application/problem+json", "x-request-id": "r1", **(headers or {})}
    return httpx.Response(status, content=json.dumps(document).encode(), headers=headers)


def respond(connection, request):
    """Answer one request under its own id."""
    response = answer(request)
    response.headers["x-request-id"] = request.headers["x-request-id"]
    return response


@contextmanager
def listening(respond=respond):
    """Answer on a socket of its own; yields the URL.

    Args:
        respond: Gets an object for each connection, which may be given attributes, and a request.
    """

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            url = httpx.URL(f"http://{self.headers['host']}").join(self.path)  # a proxy gets all
            request = httpx.Request("POST", url, headers=dict(self.headers), content=content)
            response = respond(self, request)
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.content)

        def log_message(self, *arguments):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
