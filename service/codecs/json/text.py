"""JSON text to Python objects, strictly.

Two parsers read a body. orjson is fast but keeps the last of duplicate keys and words its errors
for programmers; ``json`` of the standard library is six times slower and lets us refuse duplicates
and say what is wrong. So orjson's reading counts only when it accounts for every key in the body.
"""

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from loss_scoring.service.codecs.mistaken import what_it_is
from loss_scoring.service.errors import InvalidError, UnreadableError


def parse(body: bytes) -> object:
    """Return what a request body says.

    Raises:
        UnreadableError: If it is not JSON in UTF-8.
        InvalidError: If a key appears twice in one object.
    """
    if b"\\" not in body:  # an escaped colon would upset the account
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _parse_strictly(body)
        if _count_keys(document) == body.count(b":"):
            return document
    return _parse_strictly(body)


def _count_keys(document: object) -> int:
    """Count the keys of a request, and the colons in its ids: all the colons its body may have."""
    if not isinstance(document, dict):
        return 0
    count = len(document)
    for name in ("losses", "series"):
        listed = document.get(name)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict):
                count += len(one)
                id_ = one.get("id")
                if isinstance(id_, str):
                    count += id_.count(":")
    return count


def _parse_strictly(body: bytes) -> object:
    try:
        return json.loads(
            str(body, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        where = f": {error.reason} at byte {error.start}"
        raise UnreadableError(f"the body is not UTF-8{_meant(body) or where}") from error
    except json.JSONDecodeError as error:
        where = f": {error.msg} at line {error.lineno} column {error.colno}"
        if body.startswith(BOM_UTF8):
            where = "; save it without a byte order mark"
        raise UnreadableError(f"the body is not JSON{_meant(body) or where}") from error
    except RecursionError as error:
        raise UnreadableError("the body is nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(f"the body holds a number that cannot be read: {error}") from error


def _meant(body: bytes) -> str:
    return "" if body.lstrip()[:1] in {b"{", b"["} else what_it_is(body)


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise InvalidError(f"the key {twice!r} appears more than once in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is not JSON; send a missing value as null")
