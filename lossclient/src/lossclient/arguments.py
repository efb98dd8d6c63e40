"""What arguments must be, and one error for all that are not.

Of types, those are checked that would otherwise pass for something else: text for a list of names,
``"false"`` for a true value, a key with a line's end in it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from lossclient.exceptions import InvalidInput

_LONGEST_S = 1e9
"""Thirty years; clocks and sockets take no more, and infinity least of all."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of HTTP."""
_PASSWORD = re.compile("//[^/]*@")
"""And the user's name before it, in a URL."""
FLAG = "True or False"
NAMES = "a list of names of columns"


def require(holds: bool, name: str, wanted: str, *value: object) -> None:  # noqa: FBT001
    """Raise unless an argument is what it must be.

    Args:
        holds: Whether it is.
        name: Of the argument.
        wanted: What it must be.
        value: What it is, for the error; left out where it is a secret.

    Example:
        >>> require(False, "losses", "a list of names", "mae")
        Traceback (most recent call last):
        lossclient.exceptions.InvalidInput: losses must be a list of names, not 'mae'
    """
    if not holds:
        found = "".join(f", not {without_password(repr(shown)):.80}" for shown in value)
        raise InvalidInput(f"{name} must be {wanted}{found}")


def without_password(text: str) -> str:
    """Return text, of a URL or about one, less the name and password that may be in it."""
    return _PASSWORD.sub("//...@", text)


def is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, Integral) and not is_flag(value) and int(value) >= least


def is_seconds(value: Any, *, zero: bool = False) -> bool:
    """Whether it is a time that a clock can wait for."""
    if not isinstance(value, Real) or is_flag(value):
        return False
    seconds: Any = value
    return bool(0 < seconds <= _LONGEST_S or (zero and seconds == 0))


def are_names(value: Any) -> bool:
    """Whether it is names, of which none is used up by reading it."""
    is_collection = isinstance(value, Collection) and not isinstance(value, str)
    return is_collection and all(isinstance(name, str) for name in value)


def is_list_of_losses(value: Any) -> bool:
    """Whether it is losses that can be written with commas between them, and at least one."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return len(value) > 0 and all(map(_is_loss, value))


def _is_loss(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return isinstance(value, str) and value != "" and "," not in value
    parameters = [parameter for name, parameter in value.items() if name != "name"]
    return (
        _is_loss(value.get("name"))
        and all(isinstance(name, str) for name in value)
        and all(isinstance(parameter, Real) or is_flag(parameter) for parameter in parameters)
    )


def is_visible(value: Any) -> bool:
    """Whether it is text of ASCII characters that leave a mark: no space, no end of a line."""
    return isinstance(value, str) and re.fullmatch("[!-~]+", value) is not None


def are_headers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and _HEADER.fullmatch(name)
        and isinstance(text, str)
        and re.fullmatch("[ -~]*", text)
        for name, text in value.items()
    )
