"""Schemas of what is no part of Kubernetes: as much of each as the manifests use, and no more.

They are written by hand, as no package that pip can install on this Python brings them. A field that
is not here fails, so whoever adds one looks it up. ``real`` reads the projects' own files, where
somebody has them: ``python tests/deploy/validate.py --crds FOLDER``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 1}
SECONDS: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def only(optional: str = "", **fields: Schema) -> Schema:
    """Return the schema of an object with these fields, of which some may be absent."""
    required = sorted(fields.keys() - set(optional.split()))
    return {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def some(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def like(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


NUMBER = like(r"^\d+(\.\d+)?$")
GATEWAY_DURATION = like(r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")
ROUTE = only(
    parentRefs=some(only(name=TEXT, namespace=TEXT)),
    hostnames=some(like(r"^[a-z0-9.-]+$")),
    rules=some(
        only(
            optional="timeouts",
            matches=some(
                only(
                    path=only(type=one_of("Exact", "PathPrefix"), value=like("^/")),
                    optional="method",
                    method=one_of("GET", "POST"),
                )
            ),
            timeouts=only(request=GATEWAY_DURATION, backendRequest=GATEWAY_DURATION),
            backendRefs=some(only(name=TEXT, port=COUNT)),
        )
    ),
)
TARGET = only(group=one_of("gateway.networking.k8s.io"), kind=one_of("HTTPRoute"), name=TEXT)
NGINX_DURATION = like(r"^[0-9]{1,4}(ms|s|m|h)?$")
CLIENT_SIDE = only(
    targetRef=TARGET, body=only(maxSize=like(r"^\d{1,4}[kmg]?$"), timeout=NGINX_DURATION)
)
SERVER_SIDE = only(targetRefs=some(TARGET), timeout=only(read=NGINX_DURATION, send=NGINX_DURATION))
CILIUM = only(
    endpointSelector=only(matchLabels=TEXTS),
    ingress=some(
        only(
            fromEntities=some(one_of("ingress", "cluster", "world", "all")),
            toPorts=some(only(ports=some(only(port=like(r"^\d+$"), protocol=one_of("TCP"))))),
        )
    ),
)
RULES = only(
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    policies=some(
        only(
            type=one_of("Pods", "Percent"),
            value=COUNT,
            periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
        )
    ),
)
FLAG = one_of("true", "false")  # a text, as all that a trigger is told
OF_PROMETHEUS = only(
    type=one_of("prometheus"),
    metricType=one_of("AverageValue", "Value"),
    metadata=only(
        serverAddress=like("^https?://"), query=TEXT, threshold=NUMBER, ignoreNullValues=FLAG
    ),
)
OF_CPU = only(
    type=one_of("cpu"),
    metricType=one_of("AverageValue", "Utilization"),
    metadata=only(value=NUMBER),
)
SCALED = only(
    scaleTargetRef=only(name=TEXT),
    minReplicaCount=SECONDS,
    maxReplicaCount=COUNT,
    pollingInterval=COUNT,
    triggers=some({"oneOf": [OF_PROMETHEUS, OF_CPU]}),
    fallback=only(
        failureThreshold=SECONDS,
        replicas=SECONDS,
        behavior=one_of("static", "currentReplicas", "currentReplicasIfHigher"),
    ),
    advanced=only(
        horizontalPodAutoscalerConfig=only(behavior=only(scaleUp=RULES, scaleDown=RULES))
    ),
)
PROMETHEUS_DURATION = like(r"^\d+(ms|s|m|h|d)$")
MONITOR = only(
    jobLabel=TEXT,
    selector=only(matchLabels=TEXTS),
    endpoints=some(
        only(
            port=TEXT,
            path=like("^/"),
            interval=PROMETHEUS_DURATION,
            scrapeTimeout=PROMETHEUS_DURATION,
        )
    ),
)
ALERTS = only(
    groups=some(
        only(
            name=TEXT,
            rules=some(
                only(
                    optional="for",
                    alert=TEXT,
                    expr=TEXT,
                    labels=TEXTS,
                    annotations=TEXTS,
                    **{"for": PROMETHEUS_DURATION},
                )
            ),
        )
    )
)

# What is of a pod in these fits Kubernetes' own schema, once put together as KServe does.
RUNTIME = only(
    supportedModelFormats=some(only(name=TEXT)),
    protocolVersions=some(one_of("v1", "v2", "grpc-v2")),
    multiModel={"type": "boolean"},
    annotations=TEXTS,
    containers=some({"type": "object"}),
)
PREDICTOR = {
    "type": "object",
    "properties": {
        "labels": TEXTS,
        "minReplicas": SECONDS,
        "model": only(modelFormat=only(name=TEXT), runtime=TEXT, protocolVersion=one_of("v2")),
    },
    "required": ["labels", "minReplicas", "model"],
}


def _whole(api: str, kind: str, spec: Schema) -> tuple[tuple[str, str], Schema]:
    optional = "annotations namespace labels"
    metadata = only(optional=optional, name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return (api, kind), only(
        apiVersion=one_of(api), kind=one_of(kind), metadata=metadata, spec=spec
    )


BY_HAND: Mapping[tuple[str, str], Schema] = dict(
    [
        _whole("gateway.networking.k8s.io/v1", "HTTPRoute", ROUTE),
        _whole("gateway.nginx.org/v1alpha1", "ClientSettingsPolicy", CLIENT_SIDE),
        _whole("gateway.nginx.org/v1alpha1", "ProxySettingsPolicy", SERVER_SIDE),
        _whole("cilium.io/v2", "CiliumNetworkPolicy", CILIUM),
        _whole("keda.sh/v1alpha1", "ScaledObject", SCALED),
        _whole("monitoring.coreos.com/v1", "ServiceMonitor", MONITOR),
        _whole("monitoring.coreos.com/v1", "PrometheusRule", ALERTS),
        _whole("serving.kserve.io/v1alpha1", "ServingRuntime", RUNTIME),
        _whole("serving.kserve.io/v1beta1", "InferenceService", only(predictor=PREDICTOR)),
    ]
)


def real(folder: Path) -> dict[tuple[str, str], Schema]:
    """Return the schemas of the CustomResourceDefinitions in a folder, closed to unknown fields."""
    found = {}
    for path in sorted(folder.glob("*.y*ml")):
        for crd in yaml.safe_load_all(path.read_text()):
            if crd and crd["kind"] == "CustomResourceDefinition":
                for version in crd["spec"]["versions"]:
                    api = f"{crd['spec']['group']}/{version['name']}"
                    schema = _closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    found[api, crd["spec"]["names"]["kind"]] = schema
    return found


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
