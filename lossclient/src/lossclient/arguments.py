"""Whether arguments are what they should be: tables of rules, one error for whatever breaks one."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from lossclient.exceptions import InvalidInput

_LONGEST_S = 1e9
"""Thirty years; clocks and sockets take no more, and infinity least of all."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of HTTP."""
_PASSWORD = re.compile("//[^/]*@")
"""And the user's name before it, in a URL."""


class Rule(NamedTuple):
    """What an argument must be.

    Attributes:
        wanted: In words, after "must be".
        holds: Whether a value is so; takes any.
        shown: Whether the error may show the value; not if it is a secret.
    """

    wanted: str
    holds: Callable[[Any], bool]
    shown: bool = True


def or_none(rule: Rule) -> Rule:
    """Return a rule by which it may be None, too."""
    return Rule(
        f"{rule.wanted}, or None", lambda value: value is None or rule.holds(value), rule.shown
    )


def check(arguments: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Hold arguments against the rules for their names.

    Raises:
        InvalidInput: If one is broken.

    Example:
        >>> check({"losses": "mae"}, {"losses": Rule("a list of names", is_names)})
        Traceback (most recent call last):
        lossclient.exceptions.InvalidInput: losses must be a list of names, not 'mae'
    """
    for name, rule in rules.items():
        value = arguments[name]
        if not rule.holds(value):
            found = f", not {without_password(repr(value)):.80}" if rule.shown else ""
            raise InvalidInput(f"{name} must be {rule.wanted}{found}")


def without_password(text: str) -> str:
    """Return text, of a URL or about one, less the name and password that may be in it."""
    return _PASSWORD.sub("//...@", text)


def is_flag(value: Any) -> bool:
    """Whether it is a truth value; a string like "false" would pass for a true one."""
    return isinstance(value, bool | np.bool_)


def is_count(value: Any, least: int) -> bool:
    """Whether it is a whole number, and not less."""
    return isinstance(value, Integral) and not is_flag(value) and int(value) >= least


def is_seconds(value: Any, *, zero: bool = False) -> bool:
    """Whether it is a time that a clock can wait for."""
    if not isinstance(value, Real) or is_flag(value):
        return False
    seconds: Any = value
    return bool(0 < seconds <= _LONGEST_S or (zero and seconds == 0))


def is_text(value: Any) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_names(value: Any) -> bool:
    """Whether it is names, of which none is used up by reading it."""
    return isinstance(value, Collection) and not isinstance(value, str) and all(map(is_text, value))


def is_list_of_names(value: Any) -> bool:
    """Whether it is such names that can be written with commas between them, and at least one."""
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and is_names(value)
        and all(name and "," not in name for name in value)
    )


def is_visible(value: Any) -> bool:
    """Whether it is text of ASCII characters that leave a mark: no space, no end of a line."""
    return isinstance(value, str) and re.fullmatch("[!-~]+", value) is not None


def are_headers(value: Any) -> bool:
    """Whether it is what HTTP takes for headers."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and _HEADER.fullmatch(name)
        and isinstance(text, str)
        and re.fullmatch("[ -~]*", text)
        for name, text in value.items()
    )
