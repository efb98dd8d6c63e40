"""The restricted pod security standard, rule by rule, baseline included.

Kubernetes' page "Pod Security Standards" is the source. The admission controller of a namespace
decides in the end; this says the same before anybody deploys.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Spec = dict[str, Any]
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX = {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def containers(spec: Spec) -> list[Spec]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [one for kind in kinds for one in spec.get(kind, [])]


def contexts(spec: Spec) -> list[Spec]:
    """Return the security contexts of the pod and of its containers."""
    return [one.get("securityContext", {}) for one in (spec, *containers(spec))]


def effective(spec: Spec, name: str) -> list[Any]:
    """Return what each container has of a field: its own, else that of the pod."""
    of_pod = spec.get("securityContext", {}).get(name)
    return [one.get("securityContext", {}).get(name, of_pod) for one in containers(spec)]


def _own(spec: Spec, name: str) -> list[Any]:
    return [one.get("securityContext", {}).get(name) for one in containers(spec)]


def _capabilities(spec: Spec, name: str) -> list[set[str]]:
    return [set((one or {}).get(name, [])) for one in _own(spec, "capabilities")]


def _handlers(spec: Spec) -> Iterator[Spec]:
    for one in containers(spec):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            yield one.get(probe, {})
        yield from one.get("lifecycle", {}).values()


def _apparmor_types(spec: Spec) -> set[str]:
    return {one.get("appArmorProfile", {}).get("type", "RuntimeDefault") for one in contexts(spec)}


RULES: Mapping[str, Callable[[Spec], bool]] = {
    "no namespaces of the host": lambda spec: (
        not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    ),
    "no Windows host process": lambda spec: (
        not any(one.get("windowsOptions", {}).get("hostProcess") for one in contexts(spec))
    ),
    "not privileged": lambda spec: not any(_own(spec, "privileged")),
    "all capabilities are dropped": lambda spec: all(
        "ALL" in dropped for dropped in _capabilities(spec, "drop")
    ),
    "no capability is added": lambda spec: all(
        added <= {"NET_BIND_SERVICE"} for added in _capabilities(spec, "add")
    ),
    "only harmless volumes": lambda spec: all(
        volume.keys() - {"name"} <= VOLUMES for volume in spec.get("volumes", [])
    ),
    "no port of the host": lambda spec: (
        not any(port.get("hostPort") for one in containers(spec) for port in one.get("ports", []))
    ),
    "no probe of another host": lambda spec: (
        not any(
            handler.get(kind, {}).get("host")
            for handler in _handlers(spec)
            for kind in ("httpGet", "tcpSocket")
        )
    ),
    "AppArmor is not off": lambda spec: _apparmor_types(spec) <= {"RuntimeDefault", "Localhost"},
    "SELinux is not changed": lambda spec: all(
        one.get("type", "container_t") in SELINUX and not one.keys() & {"user", "role"}
        for one in (context.get("seLinuxOptions", {}) for context in contexts(spec))
    ),
    "the usual /proc": lambda spec: set(_own(spec, "procMount")) <= {None, "Default"},
    "only safe sysctls": lambda spec: (
        {one["name"] for one in spec.get("securityContext", {}).get("sysctls", [])} <= SYSCTLS
    ),
    "no more privileges later": lambda spec: all(
        allowed is False for allowed in _own(spec, "allowPrivilegeEscalation")
    ),
    "not root by promise": lambda spec: all(effective(spec, "runAsNonRoot")),
    "not root by number": lambda spec: all(one.get("runAsUser") != 0 for one in contexts(spec)),
    "seccomp filters": lambda spec: all(
        (one or {}).get("type") in {"RuntimeDefault", "Localhost"}
        for one in effective(spec, "seccompProfile")
    ),
}
