"""As much of a Kubernetes API server as ``kubectl apply`` needs for one Deployment."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Document = dict[str, Any]
GVK = {"group": "apps", "version": "v1", "kind": "Deployment"}
VALIDATES = {  # so kubectl leaves that to the server
    "parameters": [{"name": "fieldValidation", "in": "query"}],
    "x-kubernetes-group-version-kind": GVK,
    "responses": {},
}
DISCOVERY: dict[str, Document] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "apps",
                "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            }
        ],
    },
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "groupVersion": "apps/v1",
        "resources": [
            {
                "name": "deployments",
                "singularName": "deployment",
                "namespaced": True,
                "kind": "Deployment",
                "verbs": ["create", "get", "patch"],
            }
        ],
    },
    "/openapi/v3": {"paths": {"apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1"}}},
    "/openapi/v3/apis/apps/v1": {
        "openapi": "3.0.0",
        "info": {"title": "", "version": ""},
        "paths": {
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}": {"patch": VALIDATES},
        },
    },
}


class Cluster:
    """Holds a Deployment.

    Args:
        url: For ``kubectl --server``.
    """

    def __init__(self) -> None:
        self.deployment: Document | None = None
        self.url = ""

    def patch(self, change: Document) -> None:
        """Merge a change into the Deployment, and set the default of what is gone."""
        assert self.deployment is not None
        _merge(self.deployment, change)
        self.set_defaults()

    def set_defaults(self) -> None:
        """Do as the API server does: without a number a Deployment has one pod."""
        assert self.deployment is not None
        self.deployment["spec"].setdefault("replicas", 1)


def _merge(here: Document, change: Document) -> None:
    for key, value in change.items():
        if value is None:
            here.pop(key, None)
        elif isinstance(value, dict) and isinstance(here.get(key), dict):
            _merge(here[key], value)
        else:
            here[key] = value


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run one until the block ends."""
    held = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, document: Document | None, status: int = 200) -> None:
            if document is None:
                status = 404
                document = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def sent(self) -> Document:
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            at = "/deployments/" in path
            self.answer(held.deployment if at else DISCOVERY.get(path))

        def do_POST(self) -> None:
            held.deployment = self.sent()
            held.set_defaults()
            self.answer(held.deployment, 201)

        def do_PATCH(self) -> None:
            held.patch(self.sent())
            self.answer(held.deployment)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
