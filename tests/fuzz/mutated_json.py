"""20,000 damaged JSON bodies: no crash, no 5xx, bounded memory, and no other reading than json's.

The standard library is the oracle: what it refuses, or reads NaN in, must not be answered 200, and
an answer must be what its reading gives. It fails when the fast loop takes what is not JSON, reads
a number otherwise, or lets a fault through as an exception.
"""

import json
import math
import random

import barrage
import orjson
from finding import Finding
from instance import MEBI, Instance, instance
from mutants import mutants
from traffic import JSON

TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b".5", b"+1", b"1e", b"0x10",
    b"null", b"true", b'"1"', b"[]", b"{}", b"[", b"]", b"{", b"}", b",", b",,", b":", b'"', b"\\",
    b'"\\ud800"', b"\\u0000", b"\xff", b"\xef\xbb\xbf", b"\x00", b"/*x*/", b"'a'", b" " * 100,
    b"9" * 400, b"1" * 20, b"1e-400", b"9007199254740993", b'"series":[],', b'"id":null,', b"\n",
    b'"prediction":[1],', b"[" * 2000, b'{"a":' * 500,
]  # fmt: skip


def token(body: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(body))
    body[place : place + rng.choice((0, 0, 1, 3))] = rng.choice(TOKENS)


def at_a_mark(body: bytearray, rng: random.Random) -> None:
    """A token where the grammar has a seam."""
    marks = [i for i, byte in enumerate(body) if byte in b"[]{},:"]
    if marks:
        place = rng.choice(marks) + rng.choice((0, 1))
        body[place:place] = rng.choice(TOKENS)


def originals() -> list[bytes]:
    plain = [{"prediction": [1.5, 2, 3e3], "target": [1, 2.25, -3]} for _ in range(3)]
    named = [{"id": f"s\u00e9-{n}", **one} for n, one in enumerate(plain)]
    rows = [{"prediction": [[1, 2], [3, 4]], "target": [[1, 1], [0, 4]]}]
    options = {"losses": ["mae"], "missing": "error", "dtype": "float64"}
    mape = ["mae", {"name": "smape", "block_denom_grad": False}]
    return [
        orjson.dumps({"losses": ["mae"], "series": plain}),
        orjson.dumps({**options, "series": named}),
        orjson.dumps({"series": rows, "losses": ["mae"], "gradients": True}),
        json.dumps({"series": named, "losses": mape}, indent=1).encode(),
        orjson.dumps({"losses": ["mae"], "series": [*plain, {"id": 7, **plain[0]}]}),
    ]


def _flat(values: list) -> list[float]:
    return [x for v in values for x in (_flat(v) if isinstance(v, list) else [float(v)])]


def _no(constant: str) -> float:
    raise ValueError(constant)


def sound(body: bytes, answer) -> bool:
    """Whether the answer is what the standard library's reading of the body gives."""
    request = json.loads(body.decode(), parse_constant=_no)
    losses = orjson.loads(answer.body)["losses"]
    if request.get("dtype") == "float32" or request.get("missing", "error") != "error":
        return True
    for series, got in zip(request["series"], losses.get("mae", []), strict="mae" in losses):
        pairs = list(zip(_flat(series["prediction"]), _flat(series["target"]), strict=True))
        want = math.fsum(abs(p - y) for p, y in pairs) / len(pairs)
        if not (got is None and math.isinf(want)) and not math.isclose(got, want, rel_tol=1e-12):
            return False
    return True


def findings(running: Instance, count: int) -> list[Finding]:
    """Judge a running service."""
    wounds = [token, token, token, at_a_mark, at_a_mark, at_a_mark]
    return barrage.findings(
        running,
        barrage.Barrage(JSON, "", sound),
        originals() * 10,
        [(mutants(originals(), count, 12, wounds), 8)],
        what=f"{count:,} damaged JSON bodies",
        invalid="answers other than the standard library's reading",
        most_mebi=64,
    )


def run(count: int = 20_000) -> list[Finding]:
    limits = {"max_body_bytes": MEBI, "max_json_bytes": MEBI, "max_open_bytes": 16 * MEBI}
    with instance(**limits) as running:
        return findings(running, count)
