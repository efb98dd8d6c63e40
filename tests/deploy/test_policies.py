"""Each policy complains of what it is there for: a manifest is broken on purpose, and it says so."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from pod_security import RULES
from policies import POLICIES
from rendered import Rendered, render, skips, why_not

pytestmark = pytest.mark.skipif(skips(), reason=str(why_not()))
GONE = object()
Edit = tuple[str, str, Any]


def pod(path: str, value: Any) -> Edit:
    return "Deployment", f"spec template spec {path}", value


def container(path: str, value: Any) -> Edit:
    return pod(f"containers 0 {path}", value)


def setting(name: str, value: Any) -> Edit:
    return "ConfigMap", f"data LOSS_SCORING_{name}", value


def broken(*edits: Edit) -> Rendered:
    """Return the overlay gpu, with what NGINX and Cilium need, and some places changed or gone."""
    nginx = render("cpu behind NGINX")
    documents = deepcopy([*render("gpu").documents, *nginx.all(CLIENT), *nginx.all(PROXY)])
    documents += deepcopy(render("gpu behind Cilium").all(CILIUM))
    for kind, path, value in edits:
        found = [one for one in documents if one["kind"] == kind]
        here: Any = next(
            (one for one in found if "LOSS_SCORING_HOST" in one.get("data", {})), found[0]
        )
        *way, last = [int(key) if key.isdigit() else key for key in path.split()]
        for key in way:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})
        if value is GONE:
            del here[last]
        else:
            here[last] = value
    return Rendered(documents)


CLIENT, PROXY, ROUTE = "ClientSettingsPolicy", "ProxySettingsPolicy", "HTTPRoute"
SCALED, MONITOR = "ScaledObject", "ServiceMonitor"
BUDGET, NETWORK, ACCOUNT = "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"
CILIUM = "CiliumNetworkPolicy"
OTHER = {"app.kubernetes.io/name": "another"}
FOR_ALERTS = "app.kubernetes.io/name"
QUERY = 'sum(loss_scoring_queue{job="loss-scoring",namespace="default"})'
GPU_NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "Exists"}]}]}  # fmt: skip
INSECURE: Mapping[str, Edit] = {
    "no namespaces of the host": pod("hostPID", value=True),
    "no Windows host process": container("securityContext windowsOptions", {"hostProcess": True}),
    "not privileged": container("securityContext privileged", value=True),
    "all capabilities are dropped": container("securityContext capabilities drop", ["NET_RAW"]),
    "no capability is added": container("securityContext capabilities add", ["SYS_PTRACE"]),
    "only harmless volumes": pod("volumes 0", {"name": "tmp", "hostPath": {"path": "/var"}}),
    "no port of the host": container("ports 0 hostPort", 8000),
    "no probe of another host": container("livenessProbe httpGet host", "example.com"),
    "AppArmor is not off": pod("securityContext appArmorProfile", {"type": "Unconfined"}),
    "SELinux is not changed": pod("securityContext seLinuxOptions", {"type": "spc_t"}),
    "the usual /proc": container("securityContext procMount", "Unmasked"),
    "only safe sysctls": pod("securityContext sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
    "no more privileges later": container("securityContext allowPrivilegeEscalation", GONE),
    "not root by promise": container("securityContext runAsNonRoot", value=False),
    "not root by number": container("securityContext runAsUser", 0),
    "seccomp filters": pod("securityContext seccompProfile", GONE),
}
CASES: list[tuple[str, str, list[Edit]]] = [
    *(("the restricted pod security standard", rule, [edit]) for rule, edit in INSECURE.items()),
    ("the restricted pod security standard", "all capabilities", [pod("initContainers", [{"name": "x"}])]),
    ("a read-only root", "can be written", [container("securityContext readOnlyRootFilesystem", value=False)]),
    ("a read-only root", "no /tmp", [container("volumeMounts 0 mountPath", "/cache")]),
    ("a read-only root", "fill the node", [pod("volumes 0 emptyDir sizeLimit", GONE)]),
    ("no token", "account that is made", [pod("serviceAccountName", "default")]),
    ("no token", "pod mounts", [pod("automountServiceAccountToken", GONE)]),
    ("no token", "gives tokens", [(ACCOUNT, "automountServiceAccountToken", True)]),
    ("no service links", "LOSS_SCORING_PORT", [pod("enableServiceLinks", GONE)]),
    ("the image is pinned", "another one", [container("image", "scorer:latest")]),
    ("the image is pinned", "another one", [container("image", "registry:5000/scorer")]),
    ("settings are real", "max_bodies", [setting("MAX_BODIES", "1")]),
    ("settings are real", "twice max_body_bytes", [setting("MAX_OPEN_BYTES", "1000")]),
    ("settings are real", "for itself alone", [setting("HOST", "127.0.0.1")]),
    ("settings are real", "another port", [setting("PORT", "9000")]),
    ("settings are real", "in the environment", [setting("API_KEYS", "0123456789abcdef")]),
    ("keys come from a Secret", "no key", [setting("API_KEYS_FILE", GONE)]),
    ("keys come from a Secret", "in no Secret", [setting("API_KEYS_FILE", "/tmp/keys")]),  # noqa: S108
    ("keys come from a Secret", "subPath", [container("volumeMounts 1 subPath", "keys")]),
    ("keys come from a Secret", "without keys", [pod("volumes 1 secret optional", value=True)]),
    ("keys come from a Secret", "cannot be read", [pod("securityContext fsGroup", GONE)]),
    ("probes", "no startup", [container("startupProbe", GONE)]),
    ("probes", "no such probe", [container("startupProbe httpGet path", "/health")]),
    ("probes", "no such port", [container("readinessProbe httpGet port", "web")]),
    ("probes", "another path", [container("readinessProbe httpGet path", "/livez")]),
    ("probes", "is killed", [container("livenessProbe httpGet path", "/readyz")]),
    ("the times of probes", "less time", [container("startupProbe failureThreshold", 30)]),
    ("the times of probes", "before the supervisor", [container("livenessProbe failureThreshold", 3)]),
    ("the times of probes", "before the supervisor", [setting("HUNG_S", "120")]),
    ("the times of probes", "for long", [container("readinessProbe periodSeconds", 30)]),
    ("probes", "no key", [setting("AUTH_PROBES", "true")]),
    ("drain", "endpoints", [container("lifecycle", GONE)]),
    ("drain", "drained", [pod("terminationGracePeriodSeconds", 39)]),
    ("drain", "drained", [setting("SHUTDOWN_S", "60")]),
    ("one restricted namespace", "without app.kubernetes.io/version", [(ACCOUNT, "metadata labels app.kubernetes.io/version", GONE)]),
    ("the Deployment", "another Deployment", [("Deployment", "spec selector matchLabels app.kubernetes.io/version", "1")]),
    ("the Deployment", "fewer labels", [("Deployment", "spec template metadata labels app.kubernetes.io/version", GONE)]),
    ("requests and limits", "request of cpu", [container("resources requests cpu", GONE)]),
    ("requests and limits", "limit of memory", [container("resources limits memory", GONE)]),
    ("requests and limits", "need not be there", [container("resources requests memory", "1Gi")]),
    ("memory suffices", "less than", [container("resources limits memory", "8Gi")]),
    ("memory suffices", "less than", [setting("MAX_OPEN_BYTES", str(8 << 30))]),
    ("memory suffices", "less than", [pod("volumes 0 emptyDir sizeLimit", "4Gi")]),
    ("the GPU", "on the CPU", [setting("DEVICE", "cpu")]),
    ("the GPU", "unnoticed", [setting("DEVICE", "auto")]),
    ("the GPU", "not one GPU", [container("resources limits nvidia.com/gpu", 2)]),
    ("the GPU", "tainted", [pod("tolerations", [])]),
    ("the GPU", "a node to come", [pod("nodeSelector", {"nvidia.com/gpu.present": "true"})]),
    ("the GPU", "a node to come", [pod("affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution", GPU_NODES)]),
    ("one restricted namespace", "enforce", [("Namespace", "metadata labels pod-security.kubernetes.io/enforce", "baseline")]),
    ("one restricted namespace", "nobody finds", [(BUDGET, "metadata labels", GONE)]),
    ("one restricted namespace", "in default", [("Service", "metadata namespace", "default")]),
    ("settings roll the pods", "no such ConfigMap", [container("envFrom 0 configMapRef name", "other-0123456789")]),
    ("settings roll the pods", "rolls no pod", [container("envFrom 0 configMapRef name", "settings"), ("ConfigMap", "metadata name", "settings")]),
    ("the Deployment", "select its pods", [("Deployment", "spec selector matchLabels", OTHER)]),
    ("the Deployment", "more than one", [("Deployment", "spec strategy rollingUpdate maxUnavailable", "50%")]),
    ("the Deployment", "more than one", [("Deployment", "spec strategy rollingUpdate maxSurge", 0)]),
    ("the Deployment", "one node", [pod("topologySpreadConstraints", GONE)]),
    ("the Deployment", "others", [pod("topologySpreadConstraints 1 labelSelector matchLabels", OTHER)]),
    ("the Service", "no pod", [("Service", "spec selector", OTHER)]),
    ("the Service", "no such port", [("Service", "spec ports 0 targetPort", "web")]),
    ("the disruption budget", "no pod", [(BUDGET, "spec selector matchLabels", OTHER)]),
    ("the disruption budget", "no node", [(BUDGET, "spec maxUnavailable", 0)]),
    ("the disruption budget", "no node", [(BUDGET, "spec", {"minAvailable": 2, "selector": {"matchLabels": {}}})]),
    ("the disruption budget", "at once", [(SCALED, "spec minReplicaCount", 1)]),
    ("the disruption budget", "broken pod", [(BUDGET, "spec unhealthyPodEvictionPolicy", GONE)]),
    ("the network policy", "no pod", [(NETWORK, "spec podSelector matchLabels", OTHER)]),
    ("the network policy", "one direction", [(NETWORK, "spec policyTypes", ["Ingress"])]),
    ("the network policy", "anybody", [(NETWORK, "spec ingress 0 from", [])]),
    ("the network policy", "anybody", [(NETWORK, "spec ingress 0 from 0 namespaceSelector", {})]),
    ("the network policy", "other ports", [(NETWORK, "spec ingress 0 ports", [])]),
    ("the network policy", "opens no", [(NETWORK, "spec egress", [{}])]),
    ("the policy of Cilium", "no pod", [(CILIUM, "spec endpointSelector matchLabels", {})]),
    ("the policy of Cilium", "others", [(CILIUM, "spec ingress 0 fromEntities", ["world"])]),
    ("the policy of Cilium", "other ports", [(CILIUM, "spec ingress 0 toPorts 0 ports 0 port", "80")]),
    ("the route", "no such Service", [(ROUTE, "spec rules 0 backendRefs 0 name", "scorer")]),
    ("the route", "no such port", [(ROUTE, "spec rules 0 backendRefs 0 port", 80)]),
    ("the route", "no such path", [(ROUTE, "spec rules 0 matches 0 path value", "/scores")]),
    ("the route", "world outside", [(ROUTE, "spec rules 0 matches 0 path value", "/metrics")]),
    ("the gateway's patience", "gives up", [(ROUTE, "spec rules 0 timeouts backendRequest", "10m")]),
    ("the gateway's patience", "gives up", [setting("MAX_TIMEOUT_MS", "900000")]),
    ("the gateway's patience", "the whole", [(ROUTE, "spec rules 0 timeouts request", "10m")]),
    ("the gateway's patience", "gives up", [(ROUTE, "spec rules 0 timeouts", GONE), (PROXY, "spec timeout read", "60s")]),
    ("the gateway's patience", "gives up", [(ROUTE, "spec rules 0 timeouts", GONE), (PROXY, "spec targetRefs 0 name", "x")]),
    ("the limit of bodies", "refuses bodies", [(CLIENT, "spec body maxSize", "100m")]),
    ("the limit of bodies", "no such route", [(CLIENT, "spec targetRef name", "other")]),
    ("the scaler", "no such Deployment", [(SCALED, "spec scaleTargetRef name", "scorer")]),
    ("the scaler", "sets the number", [("Deployment", "spec replicas", 2)]),
    ("the scaler", "less than two", [(SCALED, "spec minReplicaCount", 1)]),
    ("what the scaler asks", "no such metric: loss_scoring_queue", [(SCALED, "spec triggers 0 metadata query", QUERY)]),
    ("what the scaler asks", "other pods", [(SCALED, "spec triggers 0 metadata query", QUERY)]),
    ("what the scaler asks", "single batch", [(SCALED, "spec triggers 0 metadata threshold", "1000")]),
    ("what the scaler asks", "single batch", [setting("BATCH_ELEMENTS", str(16 << 20))]),
    ("what the scaler asks", "nothing is to do", [(SCALED, "spec triggers 0 metadata ignoreNullValues", GONE)]),
    ("what the scaler asks", "nothing is to do", [(SCALED, "spec triggers 1 metadata ignoreNullValues", "true")]),
    ("the scaler", "when Prometheus does", [(SCALED, "spec fallback", GONE)]),
    ("the scaler", "when Prometheus does", [(SCALED, "spec fallback behavior", "static")]),
    ("the scaler", "not the least", [(SCALED, "spec fallback replicas", 1)]),
    ("the scaler", "gives pods back", [(SCALED, "spec advanced horizontalPodAutoscalerConfig behavior scaleDown stabilizationWindowSeconds", 60)]),
    ("what the scaler asks", "no want of pods", [setting("DEVICE", "cpu")]),
    ("what the scaler asks", "not busy enough", [container("resources requests cpu", "6")]),
    ("the monitor", "no Service", [(MONITOR, "spec selector matchLabels", OTHER)]),
    ("the monitor", "no such port", [(MONITOR, "spec endpoints 0 port", "metrics")]),
    ("the monitor", "no such path", [(MONITOR, "spec endpoints 0 path", "/prometheus")]),
    ("the monitor", "longer", [(MONITOR, "spec endpoints 0 scrapeTimeout", "1m")]),
    ("the monitor", "another job", [("Service", "metadata labels", {FOR_ALERTS: "scorer"})]),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "complaint", "edits"), CASES)
def test_what_is_broken_is_found(policy, complaint, edits):
    found = list(POLICIES[policy](broken(*edits)))
    assert any(complaint in one for one in found), found


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_whole_is_not(policy):
    assert list(POLICIES[policy](broken())) == []


def test_every_policy_is_seen_to_fail():
    assert {policy for policy, _, _ in CASES} == set(POLICIES)
    assert set(INSECURE) == set(RULES)
