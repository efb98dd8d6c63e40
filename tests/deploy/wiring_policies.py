"""That objects which refer to one another agree. Each policy yields complaints."""

import re
from collections.abc import Iterator, Mapping

import yaml
from pod_policies import settings_of
from rendered import DEPLOY, ROOT, Document, Rendered
from sizes import cores_of, nginx_bytes, seconds_of

from loss_scoring.service.api.context import SCORE_PATHS
from loss_scoring.service.api.routes import build_router
from loss_scoring.service.telemetry import PROBES

Complaints = Iterator[str]
PATHS = {route.path for route in build_router(None, None, None).routes} | SCORE_PATHS
METRICS = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
ALERTS = yaml.safe_load((DEPLOY / "observability/alerts.yml").read_text())
JOBS = set(re.findall(r'job="([\w-]+)"', str(ALERTS)))
RECOMMENDED = {
    f"app.kubernetes.io/{name}" for name in ("version", "component", "part-of", "managed-by")
}
"""Beside the name; no selector has them, as a selector cannot be changed."""


def _selects(labels: Mapping[str, str], document: Document) -> bool:
    return bool(labels) and labels.items() <= document["metadata"].get("labels", {}).items()


def _ports(rendered: Rendered) -> set[str]:
    return {port["name"] for port in rendered.container["ports"]}


def namespaces(rendered: Rendered) -> Complaints:
    namespace = rendered.one("Namespace")["metadata"]
    labels = namespace.get("labels", {})
    for mode in ("enforce", "audit", "warn"):
        if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
            yield f"{mode} is not restricted"
    for document in rendered.documents:
        if document["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "loss-scoring":
            yield f"a {document['kind']} that nobody finds by its label"
        if missing := RECOMMENDED - document["metadata"].get("labels", {}).keys():
            yield f"a {document['kind']} without {', '.join(sorted(missing))}"
        where = document["metadata"].get("namespace", namespace["name"])
        if where != namespace["name"]:
            yield f"a {document['kind']} in {where}"


def settings_roll(rendered: Rendered) -> Complaints:
    maps = {one["metadata"]["name"] for one in rendered.all("ConfigMap")}
    named = {one["configMapRef"]["name"] for one in rendered.container["envFrom"]}
    for name in named - maps:
        yield f"no such ConfigMap: {name}"
    for name in named:
        if not re.search(r"-[a-z0-9]{10}$", name):
            yield f"a change of {name} rolls no pod"


def deployment(rendered: Rendered) -> Complaints:
    spec = rendered.one("Deployment")["spec"]
    if not _selects(spec["selector"]["matchLabels"], rendered.pod):
        yield "the Deployment does not select its pods"
    if RECOMMENDED & spec["selector"]["matchLabels"].keys():
        yield "the next version is another Deployment"
    if not rendered.pod["metadata"]["labels"].keys() >= RECOMMENDED:
        yield "pods have fewer labels than the Deployment"
    rolling = spec["strategy"]["rollingUpdate"]
    if {rolling["maxSurge"], rolling["maxUnavailable"]} != {0, 1}:
        yield "a rollout costs more than one pod, or gets nowhere"
    spread = rendered.pod["spec"].get("topologySpreadConstraints", [])
    keys = {one["topologyKey"] for one in spread}
    if not {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} <= keys:
        yield "all pods may be on one node, or in one zone"
    if not all(_selects(one["labelSelector"]["matchLabels"], rendered.pod) for one in spread):
        yield "others are spread"


def service(rendered: Rendered) -> Complaints:
    spec = rendered.one("Service")["spec"]
    if not _selects(spec["selector"], rendered.pod):
        yield "the Service selects no pod"
    for port in spec["ports"]:
        if port["targetPort"] not in _ports(rendered):
            yield f"no such port: {port['targetPort']}"


def disruption_budget(rendered: Rendered) -> Complaints:
    spec = rendered.one("PodDisruptionBudget")["spec"]
    if not _selects(spec["selector"]["matchLabels"], rendered.pod):
        yield "the budget selects no pod"
    least = rendered.one("ScaledObject")["spec"]["minReplicaCount"]
    may_go = spec["maxUnavailable"] if "maxUnavailable" in spec else least - spec["minAvailable"]
    if may_go < 1:
        yield "no node can be drained"
    if may_go >= least:
        yield "all pods may be evicted at once"
    if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "a broken pod holds up the drain of a node"


def network(rendered: Rendered) -> Complaints:
    spec = rendered.one("NetworkPolicy")["spec"]
    if not _selects(spec["podSelector"]["matchLabels"], rendered.pod):
        yield "the policy selects no pod"
    if set(spec["policyTypes"]) != {"Ingress", "Egress"}:
        yield "one direction is open"
    for rule in spec["ingress"]:
        froms = rule.get("from", [])
        if not froms or not all(one["namespaceSelector"].get("matchLabels") for one in froms):
            yield "anybody may come in"
        if {port["port"] for port in rule.get("ports", [])} != {"http"} & _ports(rendered):
            yield "other ports than that of the service"
    if spec["egress"]:
        yield "the service opens no connection"


def cilium(rendered: Rendered) -> Complaints:
    ports = {str(port["containerPort"]) for port in rendered.container["ports"]}
    for spec in (one["spec"] for one in rendered.all("CiliumNetworkPolicy")):
        if not _selects(spec["endpointSelector"]["matchLabels"], rendered.pod):
            yield "the policy selects no pod"
        for rule in spec["ingress"]:
            if rule["fromEntities"] != ["ingress"]:
                yield "others than the gateway may come in"
            if {port["port"] for one in rule["toPorts"] for port in one["ports"]} != ports:
                yield "other ports than that of the service"


def route(rendered: Rendered) -> Complaints:
    found = rendered.one("HTTPRoute")
    ports = {port["port"] for port in rendered.one("Service")["spec"]["ports"]}
    for rule in found["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            if backend["name"] != rendered.one("Service")["metadata"]["name"]:
                yield f"no such Service: {backend['name']}"
            if backend["port"] not in ports:
                yield f"no such port: {backend['port']}"
        for path in (match["path"]["value"] for match in rule["matches"]):
            if path not in PATHS:
                yield f"no such path: {path}"
            if path in PROBES:
                yield f"{path} is open to the world outside"


def patience(rendered: Rendered) -> Complaints:
    """Of the route, or of NGINX, which takes none from a route."""
    of_nginx = {
        target["name"]: policy["spec"]["timeout"]["read"]
        for policy in rendered.all("ProxySettingsPolicy")
        for target in policy["spec"]["targetRefs"]
    }
    found = rendered.one("HTTPRoute")
    for rule in found["spec"]["rules"]:
        read = of_nginx.get(found["metadata"]["name"], "60s")
        timeouts = rule.get("timeouts", {"request": read, "backendRequest": read})
        if seconds_of(timeouts["backendRequest"]) > seconds_of(timeouts["request"]):
            yield "the parts may take longer than the whole"
        for duration in timeouts.values():
            if seconds_of(duration) <= settings_of(rendered).max_timeout_ms / 1000:
                yield "the gateway gives up before the service does"


def body_limit(rendered: Rendered) -> Complaints:
    for policy in rendered.all("ClientSettingsPolicy"):
        if policy["spec"]["targetRef"]["name"] != rendered.one("HTTPRoute")["metadata"]["name"]:
            yield "no such route"
        if nginx_bytes(policy["spec"]["body"]["maxSize"]) < settings_of(rendered).max_body_bytes:
            yield "the gateway refuses bodies that the service takes"


def scaler(rendered: Rendered) -> Complaints:
    spec, scaled = rendered.one("ScaledObject")["spec"], rendered.one("Deployment")
    if spec["scaleTargetRef"]["name"] != scaled["metadata"]["name"]:
        yield "no such Deployment"
    if "replicas" in scaled["spec"]:
        yield "each apply sets the number of pods back"
    if not 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]:
        yield "less than two pods, or more at least than at most"
    fallback = spec.get("fallback", {})
    if fallback.get("behavior") != "currentReplicasIfHigher":
        yield "pods go when Prometheus does"
    if fallback.get("replicas") != spec["minReplicaCount"]:
        yield "the number without Prometheus is not the least one"
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    if behavior["scaleDown"]["stabilizationWindowSeconds"] < 600:
        yield "it gives pods back that are slow to start"


def triggers(rendered: Rendered) -> Complaints:
    settings, found = settings_of(rendered), rendered.one("ScaledObject")["spec"]["triggers"]
    where = rendered.one("Namespace")["metadata"]["name"]
    of_prometheus = [one["metadata"] for one in found if one["type"] == "prometheus"]
    if any(one.get("ignoreNullValues") != "false" for one in of_prometheus):
        yield "where Prometheus knows nothing, nothing is to do: pods are given back"
    for query in (one["query"] for one in of_prometheus):
        for name in set(re.findall(r"loss_scoring_\w+", query)) - METRICS:
            yield f"no such metric: {name}"
        if re.findall(r"\{(.*?)\}", query) != [f'job="{_job(rendered)}",namespace="{where}"']:
            yield "the query is about other pods"
    of_queue = [one for one in of_prometheus if "queued" in one["query"]]
    for threshold in (int(one["threshold"]) for one in of_queue):
        if not settings.batch_elements < threshold < settings.max_queued_elements / 2:
            yield "it scales for a single batch, or when half of the queue is full"
    of_cpu = [int(one["metadata"]["value"]) for one in found if one["type"] == "cpu"]
    if of_cpu and settings.device == "cpu":
        yield "one batch keeps all cores busy, which is no want of pods"
    cores = max(settings.frontends, 1)
    for busy in of_cpu:
        if 100 * cores / cores_of(rendered.container["resources"]["requests"]["cpu"]) <= busy:
            yield "front ends that are busy all the time are not busy enough"


def _job(rendered: Rendered) -> str | None:
    label = rendered.one("ServiceMonitor")["spec"]["jobLabel"]
    return rendered.one("Service")["metadata"].get("labels", {}).get(label)


def monitor(rendered: Rendered) -> Complaints:
    spec, scraped = rendered.one("ServiceMonitor")["spec"], rendered.one("Service")
    if not _selects(spec["selector"]["matchLabels"], scraped):
        yield "the monitor selects no Service"
    for endpoint in spec["endpoints"]:
        if endpoint["port"] not in {port["name"] for port in scraped["spec"]["ports"]}:
            yield f"no such port: {endpoint['port']}"
        if endpoint["path"] not in PATHS:
            yield f"no such path: {endpoint['path']}"
        if seconds_of(endpoint["scrapeTimeout"]) > seconds_of(endpoint["interval"]):
            yield "a scrape may take longer than the next one waits"
    if {_job(rendered)} != JOBS:
        yield "alerts ask for another job"
