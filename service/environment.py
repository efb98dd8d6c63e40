"""Variables of the environment that begin as settings do, some of which are none.

Kubernetes sets ``LOSS_SCORING_PORT=tcp://10.0.0.1:8000`` and a dozen more in every container beside
a Service that is called loss-scoring, and so for each Service whose name begins like that.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

PREFIX = "LOSS_SCORING_"
_LINK_NAME = re.compile(
    r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

_NEARLY_PREFIX = re.compile(r"^LOSS[-_.]*SCORING[-_.]+")


def is_link(name: str, value: str) -> bool:
    """Return whether a variable is one that Kubernetes sets for a Service.

    >>> is_link("LOSS_SCORING_PORT", "tcp://10.0.0.1:8000"), is_link("LOSS_SCORING_PORT", "8000")
    (True, False)
    """
    rest = name.upper().removeprefix(PREFIX)
    is_port = re.fullmatch(r"(.+_)?PORT", rest) and _LINK_ADDRESS.match(value)
    return bool(is_port or _LINK_NAME.fullmatch(rest))


def check_names(environment: Mapping[str, str], settings: Iterable[str]) -> None:
    """Refuse variables that look like settings and are none.

    Args:
        environment: All variables.
        settings: The names of all settings, in lower case.

    Raises:
        ValueError: If there is one; it names them all, and what may have been meant.
    """
    known = {setting.replace("_", ""): f"{PREFIX}{setting.upper()}" for setting in settings}
    faults = []
    for name, value in sorted(environment.items()):
        rest = _NEARLY_PREFIX.sub("", name.upper())
        if rest == name.upper() or name.upper() in known.values() or is_link(name, value):
            continue
        meant = get_close_matches(rest.lower().replace("_", ""), known, 1)
        hint = f"; did you mean {known[meant[0]]}?" if meant else ""
        faults.append(f"{name} is not a setting{hint}")
    if faults:
        raise ValueError("\n".join(faults))
