"""Long bodies that only the strict reader reads: in pieces, within memory, and called off."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from test_json_common import bodies, outcome

from loss_scoring.service.codecs.json import decode, loop, parse, strict, warm_up
from loss_scoring.service.codecs.json.parse import PIECE, LongValue, elements_of, read_document
from loss_scoring.service.codecs.json.strict import decode_strictly
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.errors import (
    DeadlineError,
    InvalidError,
    ServiceError,
    TooLargeError,
    UnreadableError,
)

SIZE = 1 << 18
PLAIN = b'{"prediction":[1],"target":[1]}'


class Account:
    """Memory that notes the most that was reserved, and ends a request after some checks."""

    def __init__(self, checks=10**9):
        self.most, self.checked, self._checks = 0, 0, checks

    def reserve(self, added):
        self.most = max(self.most, added)

    def check(self):
        self.checked += 1
        if self.checked > self._checks:
            raise DeadlineError("late")

    def receive(self, size): ...

    def settle(self, added): ...


def many(element, size=SIZE):
    return b",".join([element] * (size // (len(element) + 1)))


def of_series(*series):
    return b'{"series":[' + b",".join(series) + b"]}"


def sides(prediction, target=b"1", first=b'"id":1,'):
    """A request that is uncommon, as one series has an id and the other has none."""
    series = b'{%b"prediction":[%b],"target":[%b]}' % (first, prediction, target)
    return of_series(series, PLAIN)


@settings(max_examples=300, deadline=None)
@given(bodies())
def test_pieces_are_read_as_the_whole(body):
    """With small pieces, each body meets their borders; only what is long by itself is refused."""
    whole = outcome(decode_strictly, body)
    with pytest.MonkeyPatch.context() as patch:
        for module in (parse, strict):
            patch.setattr(module, "PIECE", 128)
        pieces = outcome(decode_strictly, body)
    if not isinstance(whole[0], bytes):
        assert issubclass(pieces[0], ServiceError)
        return
    assume(all(not isinstance(name, str) or len(json.dumps(name)) < 100 for name in whole[5]))
    assert pieces == whole


LONG = {
    "objects": of_series(many(b"{}")),
    "objects of objects": of_series(many(b'{"a":{}}')),
    "lists": of_series(many(b"[[]]")),
    "deep lists": of_series(many(b"[" * 400 + b"]" * 400)),
    "nulls": of_series(many(b"null")),
    "strings": of_series(many(b'"x"')),
    "fields": b"{" + b",".join(b'"%d":0' % i for i in range(SIZE // 10)) + b"}",
    "fields of a series": of_series(b"{" + b",".join(b'"%d":0' % i for i in range(SIZE // 10)) + b"}"),
    "losses": b'{"series":[],"losses":[' + many(b'"mae"') + b"]}",
    "an option": b'{"series":[],"dtype":"' + b"x" * SIZE + b'"}',
    "escapes": of_series(b'{"id":"' + many(b"\\u0001") + b'","prediction":[1],"target":[1]}'),
    "ids": of_series(many(b'{"id":"%b","prediction":[1],"target":[1]}' % (b"\\u0001" * 50)), PLAIN),
    "wide ids": of_series(many('{"id":"\U0001f600","prediction":[1],"target":[1]}'.encode()), PLAIN),
    "missing": b'{"missing":"skip",' + sides(many(b"null"), many(b"null"))[1:],
    "numbers": sides(many(b"1"), many(b"1")),
    "floats": sides(many(b"1.2345678901234567"), many(b"1")),
    "one side": sides(many(b"1")),
    "float32": b'{"dtype":"float32",' + sides(many(b"1.5"), many(b"1.5"))[1:],
    "rows": sides(many(b"[1]"), many(b"[1]")),
    "a row": sides(b"[%b]" % many(b"1"), b"[%b]" % many(b"1")),
    "common": of_series(b'{"prediction":[%b],"target":[%b]}' % (many(b"1"), many(b"1"))),
    "common ids": of_series(many(b'{"id":"\xc3\xa9","prediction":[1],"target":[1]}')),
    "digits": sides(many(b"1" * 4000), many(b"1" * 4000)),
    "commas": sides(b"," * SIZE),
}  # fmt: skip


@pytest.mark.parametrize("body", LONG.values(), ids=LONG)
def test_what_reading_makes_is_reserved(body, monkeypatch):
    monkeypatch.setattr(NUMBERS, "empty", np.empty)  # whose blocks are larger than what is touched
    memory = Account()
    warm_up()
    tracemalloc.start()
    try:
        decode(body, max_elements=SIZE, memory=memory)
    except ServiceError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= memory.most + (1 << 14)  # what does not grow with the body


@pytest.mark.parametrize("name", ["numbers", "rows", "a row", "missing", "ids", "wide ids"])
def test_a_request_that_has_ended_is_called_off(name):
    body, memory = LONG[name], Account()
    decode_strictly(body, SIZE, memory)
    assert memory.checked >= len(body) // PIECE
    for checks in (0, 1, memory.checked // 2, memory.checked - 1):
        with pytest.raises(DeadlineError):
            decode_strictly(body, SIZE, Account(checks))


def test_faults_are_not_sought_beyond_those_that_are_listed():
    memory = Account()
    with pytest.raises(InvalidError, match=r"at least \d+ faults .* first 20 are") as caught:
        decode(of_series(many(b"1,{}"), b"what is no JSON"), max_elements=1, memory=memory)
    assert len(caught.value.errors) == 20
    assert memory.checked < 5


def test_few_faults_are_counted_to_the_end():
    body = of_series(b"1", many(PLAIN), b"2")
    with pytest.raises(InvalidError, match=r"^2 faults were found$") as caught:
        decode(body, max_elements=SIZE)
    last = SIZE // (len(PLAIN) + 1) + 1
    assert [fault.pointer for fault in caught.value.errors] == ["/series/0", f"/series/{last}"]


ROWS = many(b"[1,2]")
COUNT = SIZE // 6
WIDE = b"[%b]" % many(b"1")
LENGTH = SIZE // 2


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        (sides(many(b"1") + b",null", b"1"), f"/series/0/prediction/{LENGTH}", "is null"),
        (sides(many(b"1") + b',"x"', b"1"), f"/series/0/prediction/{LENGTH}", "not a string"),
        (sides(many(b"1") + b',"%b"' % (b"x" * PIECE), b"1"), f"/series/0/prediction/{LENGTH}",
         "not a string"),
        (sides(many(b"1") + b",[" + many(b"1") + b"]", b"1"), f"/series/0/prediction/{LENGTH}",
         "not a list"),
        (sides(many(b"1"), many(b"1") + b",1"), "/series/0", "differ in shape"),
        (sides(ROWS + b",[1,[]]"), f"/series/0/prediction/{COUNT}/1", "not a list"),
        (sides(ROWS + b",[1]"), f"/series/0/prediction/{COUNT}", "equally long"),
        (sides(ROWS + b",1"), f"/series/0/prediction/{COUNT}", "equally long"),
        (sides(ROWS + b"," + WIDE), f"/series/0/prediction/{COUNT}", "equally long"),
        (sides(WIDE + b",[1]"), "/series/0/prediction/1", "equally long"),
        (sides(WIDE + b"," + WIDE[:-1] + b",1]"), "/series/0/prediction/1", "equally long"),
        (sides(WIDE + b"," + WIDE[:-2] + b"{}]"), f"/series/0/prediction/1/{LENGTH - 1}",
         "not an object"),
        (sides(b"[%b]" % (b" " * PIECE)), "/series/0/prediction/0", "not empty"),
        (sides(b" " * SIZE), "/series/0/prediction", "is empty"),
        (sides(b"1", b"1", b'"id":"%b",' % (b"x" * PIECE)), "/series/0/id", "512 are allowed"),
        (sides(b"1", b"1", b'"id":[%b],' % many(b"1")), "/series/0/id", "not a list"),
        (sides(b"1", b"1", b'"x":[%b],' % many(b"1")), "/series/0/x", "unknown field"),
        (of_series(b'"%b"' % (b"x" * PIECE)), "/series/0", "must be an object, not a string"),
        (b'{"series":"%b"}' % (b"x" * PIECE), "/series", "not a string"),
        (b'{"series":{"a":[%b]}}' % many(b"1"), "/series", "not an object"),
        (LONG["an option"], "/dtype", "is over 65536 bytes long"),
        (LONG["losses"], "/losses", "is over 65536 bytes long"),
        (b'{"series":[],"loses":[%b]}' % many(b"1"), "/loses", "did you mean"),
    ],
)  # fmt: skip
def test_a_fault_in_a_later_piece_is_named(body, pointer, says):
    with pytest.raises(InvalidError) as caught:
        decode(body, max_elements=SIZE)
    (fault,) = caught.value.errors
    assert fault.pointer == pointer
    assert says in fault.detail


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (b"[%b]" % many(b"{}"), InvalidError, "looks like a frame"),
        (b"[%b]" % many(b"1"), InvalidError, "must be an object, not a list"),
        (b'"%b"' % (b"x" * SIZE), InvalidError, "must be an object, not a string"),
        (b'{"y":[%b],"id":[%b]}' % (many(b"1"), many(b"1")), InvalidError, "looks like a frame"),
        (LONG["fields"], InvalidError, "over 1000 fields"),
        (LONG["fields of a series"], InvalidError, "over 1000 fields"),
        (b'{"series":[],' + b" " * PIECE + b'"series":[]}', InvalidError, "more than once"),
        (b'{"series":[%b],"series":[]}' % many(PLAIN), InvalidError, "more than once"),
        (sides(many(b"1"), many(b"1")), TooLargeError, "this server takes 100"),
        (sides(b"1" * SIZE), UnreadableError, "a number of over 65536 bytes, at byte 33"),
        (b"1" * SIZE, UnreadableError, "a number of over 65536 bytes, at byte 0"),
        (b'{"series":[],"%b":1}' % (b"x" * SIZE), InvalidError, "... at byte 13: unknown field"),
        (b"[" * SIZE + b"]" * SIZE, UnreadableError, "nested too deeply"),
        (of_series(b'{"a":' * SIZE + b"1" + b"}" * SIZE), UnreadableError, "nested too deeply"),
        (b" " * SIZE, UnreadableError, "not JSON"),
        (b"unique_id,ds,y\n" * SIZE, UnreadableError, "not JSON: Expecting value at line 1 column 1"),
        ("\u00e9".encode() * SIZE, UnreadableError, "not JSON: Expecting value"),
        (b"PAR1" + b"\xff" * SIZE, UnreadableError, "it is a Parquet file"),
        (of_series(b"\xff" * SIZE), UnreadableError, "not JSON"),
        (of_series(many(PLAIN), b'{"id":"\xff"}'), UnreadableError, "not UTF-8"),
        (of_series(many(PLAIN), b"{}}"), UnreadableError, "not JSON at byte"),
        (of_series(many(PLAIN), b"]"), UnreadableError, "not JSON"),
        (of_series(many(PLAIN), b""), UnreadableError, "not JSON"),
        (of_series(b"", many(PLAIN)), UnreadableError, "not JSON"),
        (of_series(many(PLAIN)) + b"}", UnreadableError, "not JSON at byte"),
        (of_series(many(PLAIN)) + b" 1", UnreadableError, "not JSON at byte"),
        (of_series(many(PLAIN))[:-1], UnreadableError, "not JSON"),
        (of_series(many(PLAIN))[:-2], UnreadableError, "not JSON"),
        (of_series(many(PLAIN))[:-2] + b"}}", UnreadableError, "not JSON"),
        (sides(many(b"1") + b","), UnreadableError, "not JSON"),
        (sides(many(b"1") + b"\x0b"), UnreadableError, "not JSON"),
        (sides(many(b"1") + b",01"), UnreadableError, "not JSON"),
        (sides(many(b"1") + b",NaN"), UnreadableError, "NaN is not JSON"),
        (sides(many(b"1") + b"]]"), UnreadableError, "not JSON"),
        (b'{"series" [%b]}' % many(PLAIN), UnreadableError, "not JSON"),
        (b"{series:[%b]}" % many(PLAIN), UnreadableError, "not JSON"),
        (b'{"series":["%b' % (b"\\" * SIZE), UnreadableError, "not JSON"),
    ],
)  # fmt: skip
def test_a_long_body_is_refused_as_a_short_one_is(body, error, says):
    with pytest.raises(error) as caught:
        decode(body, max_elements=100 if error is TooLargeError else SIZE)
    assert says in str(caught.value)


def test_a_long_body_is_read():
    rows = np.random.default_rng(0).normal(size=(3, 5000, 4))
    plain = rows.reshape(3, -1)
    series = [
        {"prediction": side.tolist(), "target": (-side).tolist()}
        for pair in zip(rows, plain, rows.reshape(3, 1, -1), strict=True)
        for side in pair
    ]
    series[4]["id"] = "x"
    body = json.dumps({"series": series, "dtype": "float32"}).encode()
    request = decode(body, max_elements=SIZE)
    numbers = np.repeat(rows.reshape(3, 1, -1), 3, axis=1).ravel().astype(np.float32)
    assert (request.prediction.array == numbers).all()
    assert (request.target.array == -numbers).all()
    assert request.prediction.offsets.tolist() == list(range(0, 180_001, 20_000))
    assert request.channels.tolist() == [4, 0, 20_000] * 3
    assert request.id_list() == [0, 1, 2, 3, "x", 5, 6, 7, 8]


def test_the_parser_never_gets_more_than_a_piece(monkeypatch):
    sizes = []

    def parsed(text, start=0, parser=parse.parse):
        sizes.append(len(text))
        return parser(text, start)

    monkeypatch.setattr(parse, "parse", parsed)
    for body in LONG.values():
        try:
            decode_strictly(body, SIZE)
        except ServiceError:
            continue
    assert max(sizes) <= PIECE + 2


def test_a_long_value_that_is_not_needed_is_not_parsed():
    body = b"[%b,[%b],1]" % (many(b"1"), many(b"what is no JSON"))
    pieces = elements_of(read_document(body, lambda: None))
    values = list(itertools.chain.from_iterable(pieces))
    assert len(values) == SIZE // 2 + 2
    assert isinstance(values[-2], LongValue)
    assert values[-1] == 1


@pytest.mark.parametrize("unit", [b"[", b"]", b"{", b",", b'"', b"\\", b'"\\', b" ", b"1", b",1 "])
def test_the_end_of_a_piece_is_sought_within_the_body(unit):
    for times in (0, 1, 2, 300):
        for size in (0, 1, 10**6):
            body = unit * times
            found = set()
            for around in (b"1", b" ", b"]", b'"', b",", b"\\"):
                text = np.frombuffer(around * 64 + body + around * 64, np.uint8)[
                    64 : 64 + len(body)
                ]
                found.add(loop.end_of_piece(text, 0, size, 500))
            ((stop, first, last),) = found  # what lies around the body plays no part
            assert -1 <= stop <= len(body)
            assert 0 <= first <= last <= len(body)
