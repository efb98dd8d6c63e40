"""All policies by name. Each takes what was rendered and yields complaints."""

from collections.abc import Callable, Iterator, Mapping

import pod_policies as pod
import wiring_policies as wiring
from rendered import Rendered

POLICIES: Mapping[str, Callable[[Rendered], Iterator[str]]] = {
    "the restricted pod security standard": pod.restricted,
    "a read-only root": pod.read_only,
    "no token": pod.no_token,
    "no service links": pod.no_service_links,
    "the image is pinned": pod.image_pinned,
    "settings are real": pod.settings_valid,
    "keys come from a Secret": pod.keys_mounted,
    "probes": pod.probes,
    "the times of probes": pod.probe_times,
    "drain": pod.drain,
    "requests and limits": pod.resources,
    "memory suffices": pod.memory,
    "the GPU": pod.gpu,
    "one restricted namespace": wiring.namespaces,
    "settings roll the pods": wiring.settings_roll,
    "the Deployment": wiring.deployment,
    "the Service": wiring.service,
    "the disruption budget": wiring.disruption_budget,
    "the network policy": wiring.network,
    "the policy of Cilium": wiring.cilium,
    "the route": wiring.route,
    "the gateway's patience": wiring.patience,
    "the limit of bodies": wiring.body_limit,
    "the scaler": wiring.scaler,
    "what the scaler asks": wiring.triggers,
    "the monitor": wiring.monitor,
}

OF_KSERVE = {
    "the Deployment",
    "the Service",
    "the route",
    "the gateway's patience",
    "the scaler",
    "what the scaler asks",
    "the monitor",
}
"""About objects that KServe makes, where it does, or that refer to them."""
