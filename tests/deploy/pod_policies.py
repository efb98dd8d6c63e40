"""What the pod has to be like, beside the pod security standard. Each policy yields complaints."""

import re
from collections.abc import Iterator

from pod_security import RULES
from rendered import Document, Rendered
from sizes import bytes_of, most_memory

from loss_scoring.service.processes.child import STARTING_S
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import PROBES

Complaints = Iterator[str]
_PREFIX = "LOSS_SCORING_"


def settings_of(rendered: Rendered) -> Settings:
    """Return the settings that the container's environment makes.

    Raises:
        pydantic.ValidationError: If one is unknown or has no sense.
    """
    given = {
        name.removeprefix(_PREFIX).lower(): value
        for name, value in rendered.environment.items()
        if name.startswith(_PREFIX)
    }
    return Settings(**given)


def restricted(rendered: Rendered) -> Complaints:
    spec = rendered.pod["spec"]
    yield from (name for name, holds in RULES.items() if not holds(spec))


def read_only(rendered: Rendered) -> Complaints:
    if not rendered.container["securityContext"].get("readOnlyRootFilesystem"):
        yield "the root file system can be written"
    volumes = {one["name"]: one for one in rendered.pod["spec"]["volumes"]}
    mounts = {
        one["mountPath"]: volumes.get(one["name"]) for one in rendered.container["volumeMounts"]
    }
    if not (mounts.get("/tmp") or {}).get("emptyDir"):  # noqa: S108 - of the container
        yield "there is no /tmp"
    for volume in volumes.values():
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"the volume {volume['name']} may fill the node"


def no_token(rendered: Rendered) -> Complaints:
    spec, account = rendered.pod["spec"], rendered.one("ServiceAccount")
    if spec.get("serviceAccountName") != account["metadata"]["name"]:
        yield "the pod has not the account that is made for it"
    if spec.get("automountServiceAccountToken") is not False:
        yield "the pod mounts a token"
    if account.get("automountServiceAccountToken") is not False:
        yield "the account gives tokens"


def no_service_links(rendered: Rendered) -> Complaints:
    if rendered.pod["spec"].get("enableServiceLinks") is not False:
        yield "the Service sets LOSS_SCORING_PORT"


def image_pinned(rendered: Rendered) -> Complaints:
    image = rendered.container["image"]
    tag = re.fullmatch(r".+(?::([\w.-]+)|@sha256:[0-9a-f]{64})", image)
    if not tag or tag[1] == "latest":
        yield f"{image} may be another one tomorrow"


def settings_valid(rendered: Rendered) -> Complaints:
    try:
        settings = settings_of(rendered)
    except ValueError as error:
        yield str(error)
        return
    if settings.host not in {"0.0.0.0", "::"}:  # noqa: S104 - in a pod
        yield "it listens for itself alone"
    if settings.port not in {port["containerPort"] for port in rendered.container["ports"]}:
        yield "it listens on another port than it says"
    if settings.api_keys is not None:
        yield "keys stand in the environment, where they cannot be changed while it runs"


def keys_mounted(rendered: Rendered) -> Complaints:
    file = settings_of(rendered).api_keys_file
    if file is None:
        yield "it asks for no key"
        return
    mounts = {one["mountPath"]: one for one in rendered.container["volumeMounts"]}
    volumes = {one["name"]: one for one in rendered.pod["spec"]["volumes"]}
    mount = mounts.get(str(file.parent), {"name": None})
    secret = volumes.get(mount["name"], {}).get("secret")
    if secret is None:
        yield f"{file} is in no Secret"
        return
    if "subPath" in mount:
        yield "a subPath does not follow the Secret"
    if secret.get("optional"):
        yield "a pod may start without keys"
    if not secret.get("defaultMode", 0o644) & 0o004:
        readers = rendered.pod["spec"]["securityContext"]
        if not (secret["defaultMode"] & 0o040 and "fsGroup" in readers):
            yield "the keys cannot be read"


def _probes(rendered: Rendered) -> dict[str, Document]:
    kinds = ("startup", "readiness", "liveness")
    found = {kind: rendered.container.get(f"{kind}Probe") for kind in kinds}
    return {kind: probe for kind, probe in found.items() if probe is not None}


def probes(rendered: Rendered) -> Complaints:
    found = _probes(rendered)
    for kind in {"startup", "readiness", "liveness"} - found.keys():
        yield f"no {kind} probe"
    ports = {port["name"] for port in rendered.container["ports"]}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in found.items()}
    for kind, probe in found.items():
        if paths[kind] not in PROBES - {"/metrics"}:
            yield f"{kind}: no such probe"
        if probe["httpGet"]["port"] not in ports:
            yield f"{kind}: no such port"
    if paths.get("readiness") != "/readyz":
        yield "readiness is asked of another path"
    if paths.get("liveness") != "/livez":
        yield "a pod that is not ready, as while its worker is replaced, is killed"
    if settings_of(rendered).auth_probes:
        yield "the kubelet has no key"


def probe_times(rendered: Rendered) -> Complaints:
    most = {
        kind: probe["periodSeconds"] * probe["failureThreshold"]
        for kind, probe in _probes(rendered).items()
    }
    if most["startup"] < STARTING_S:
        yield "a start has less time than the supervisor gives it"
    if (
        most["liveness"] - _probes(rendered)["liveness"]["periodSeconds"]
        < settings_of(rendered).hung_s
    ):
        yield "the pod is killed before the supervisor replaces who hangs"
    if most["readiness"] > 15:
        yield "a pod that is not ready gets requests for long"


def drain(rendered: Rendered) -> Complaints:
    spec = rendered.pod["spec"]
    sleep = rendered.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    pause = sleep.get("seconds", 0)
    if pause < 5:
        yield "it stops listening before the endpoints know"
    if spec["terminationGracePeriodSeconds"] < pause + settings_of(rendered).shutdown_s + 5:
        yield "it is killed before it has drained"


def resources(rendered: Rendered) -> Complaints:
    found = rendered.container.get("resources", {})
    requests, limits = found.get("requests", {}), found.get("limits", {})
    if "cpu" not in requests:
        yield "no request of cpu"
    if "memory" not in limits:
        yield "no limit of memory"
    if requests.get("memory") != limits.get("memory"):
        yield "memory that it may take need not be there"


def memory(rendered: Rendered) -> Complaints:
    limit = rendered.container.get("resources", {}).get("limits", {}).get("memory", "0")
    in_memory = sum(
        bytes_of(volume["emptyDir"]["sizeLimit"])
        for volume in rendered.pod["spec"]["volumes"]
        if volume.get("emptyDir", {}).get("medium") == "Memory"
    )
    needed = most_memory(settings_of(rendered)) + in_memory
    if bytes_of(limit) < needed:
        yield f"{limit} are less than {needed >> 20}Mi, which its limits let it take"


def gpu(rendered: Rendered) -> Complaints:
    spec = rendered.pod["spec"]
    limits = rendered.container.get("resources", {}).get("limits", {})
    asked = {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}
    if settings_of(rendered).device == "cpu":
        if asked:
            yield "a GPU for a service on the CPU"
        return
    if settings_of(rendered).device != "cuda":
        yield "without a GPU it would score on the CPU, unnoticed"
    if list(asked.values()) != [1]:
        yield "not one GPU, nor one part of one"
    if not any(one.get("key") == "nvidia.com/gpu" for one in spec.get("tolerations", [])):
        yield "nodes with a GPU are tainted"
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if "nvidia.com/" in str([required, spec.get("nodeSelector")]):
        yield "an autoscaler does not know that a node to come will have that label"
