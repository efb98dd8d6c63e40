"""Every decision on the way from a part to its scores, with a clock that only pauses move."""

import itertools
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fake_service import answer, answer_with, problem, scores_of
from hypothesis import given
from hypothesis import strategies as st

from lossclient import (
    BadRequest,
    DeadlineExceeded,
    InvalidValues,
    Overloaded,
    TooLarge,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    ValueFault,
    wire,
)
from lossclient.exchange import Pause, Post, Rules, SizeLimit, Surroundings, exchange
from lossclient.forecasts import Forecasts, Key
from lossclient.options import ScoreOptions
from lossclient.plan import plan
from lossclient.retries import Retries
from lossclient.wire import Part


class Clock:
    """Stands still but for pauses, and for what a request is said to take."""

    def __init__(self):
        self.now = 100.0

    def surroundings(self):
        return Surroundings(
            now=lambda: self.now,
            today=lambda: datetime(2026, 11, 25, tzinfo=UTC),
            chance=lambda: 0.5,
        )


FORECASTS = Forecasts(
    offsets=np.array([0, 2, 3, 6, 10]),
    target=np.arange(1.0, 11),
    models=("Naive", "Theta"),
    predictions=(np.arange(10.0), np.arange(2.0, 12)),
    key_of=lambda series: Key("abcd"[series], 2020 + series),
    rows=np.arange(10)[::-1].copy(),
    in_rows=True,
)
ALL = Part(0, 4, (0,))
BOTH = Part(0, 4, (0, 1))


def play(outcomes, part=ALL, *, forecasts=FORECASTS, took_s=0.0, clock=None, **rules):
    """Run an exchange against scripted outcomes; returns (tables or None, posts, pauses, error).

    An outcome is a response, an exception, or a function from the request to a response.
    """
    clock = clock or Clock()
    rules = {"options": ScoreOptions(), "retries": Retries(), "size_limit": SizeLimit(), **rules}
    steps = exchange(forecasts, part, Rules(surroundings=clock.surroundings(), **rules))
    outcomes = iter(outcomes)
    posts, pauses = [], []
    reply = None
    try:
        while True:
            step = steps.send(reply)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                clock.now += step.seconds
                reply = None
                continue
            assert isinstance(step, Post)
            posts.append(step)
            clock.now += took_s
            outcome = next(outcomes)
            if callable(outcome):
                url = httpx.URL("http://x/score", params=step.query)
                outcome = outcome(httpx.Request("POST", url, content=bytes(step.body)))
            reply = outcome
    except StopIteration as end:
        return end.value, posts, pauses, None
    except Exception as error:  # noqa: BLE001 - the tests look at it
        return None, posts, pauses, error


def test_scores_at_once():
    tables, posts, pauses, _ = play([answer])
    (table,) = tables
    assert table.column_names == ["length", "mae", "mape", "smape", "mape_masked", "smape_masked"]
    assert table["length"].to_pylist() == [2, 1, 3, 4]
    assert table["mae"].to_pylist() == [1, 1, 1, 1]
    assert (len(posts), pauses) == (1, [])
    assert posts[0].within_s is None
    assert "X-Request-Timeout-Ms" not in posts[0].headers


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("silence"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("silence"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("cut off"),
        *(problem(status) for status in (429, 502, 503, 504)),
        httpx.Response(502, content=b"<html>Bad Gateway</html>"),
        problem(408, retryable=True),
        problem(500, retryable=True),
    ],
)
def test_retries_where_they_may_help(outcome):
    tables, posts, pauses, error = play([outcome, outcome, answer])
    assert error is None
    assert len(tables) == 1
    assert pauses == [0.125, 0.25]
    ids = [post.headers["X-Request-Id"] for post in posts]
    assert len({name.rpartition("-")[0] for name in ids}) == 1  # together in a log
    assert [name.rpartition("-")[2] for name in ids] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(400), BadRequest),
        (problem(401), Unauthorized),
        (problem(403), Unauthorized),
        (problem(404), BadRequest),
        (problem(406), BadRequest),
        (problem(422), InvalidValues),
        (problem(431), BadRequest),
        (problem(500), Unavailable),
        (httpx.Response(500, content=b"oops"), Unavailable),
        (httpx.Response(302, headers={"location": "/login"}), UnexpectedAnswer),
        (httpx.Response(200, content=b"<html>Welcome</html>"), UnexpectedAnswer),
        (
            httpx.Response(
                200, content=b"x", headers={"content-type": "application/vnd.apache.arrow.stream"}
            ),
            UnexpectedAnswer,
        ),
        (httpx.UnsupportedProtocol("gopher"), TransportError),
        (httpx.DecodingError("no gzip"), TransportError),
    ],
)
def test_no_retry_where_it_cannot_help(outcome, kind):
    _, posts, pauses, error = play([outcome])
    assert type(error) is kind
    assert (len(posts), pauses) == (1, [])


def replaced(name, column):
    return lambda table: table.set_column(table.column_names.index(name), name, column(table[name]))


def with_an_element_more(lists):
    first, *others = lists.to_pylist()
    return pa.array([[0.0, *first], *others], lists.type)


def without_first_numbers(lists):
    first, *others = lists.to_pylist()
    return pa.array([[None] * len(first), *others], lists.type)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.slice(1), "7 rows for 8"),
        (lambda table: pa.concat_tables([table.slice(1), table.slice(0, 1)]), "not those of"),
        (replaced("series", lambda old: pc.add(old, 1).cast("int32")), "not those of"),
        (replaced("model", lambda old: old.take(pa.array([1, 0] * 4))), "not those of"),
        (replaced("length", lambda old: pa.array([5, 2, 1, 1, 3, 3, 4, 4])), "not those of"),
        (replaced("length", lambda old: pa.array([None, 2, 1, 1, 3, 3, 4, 4])), "not those of"),
        (lambda table: table.drop_columns("mape"), "columns"),
        (lambda table: table.drop_columns("smape_gradient"), "columns"),
        (lambda table: table.append_column("mae", table["mae"]), "columns"),
        (lambda table: table.append_column("rmse", table["mae"]), "columns"),
        (replaced("mae", lambda old: old.cast(pa.string())), "types"),
        (replaced("mae_gradient", lambda old: old.cast(pa.list_(pa.float32()))), "types"),
        (replaced("mape_masked", lambda old: pa.nulls(8, pa.int64())), "mape_masked holds nulls"),
        (replaced("mae_gradient", lambda old: pa.nulls(8, old.type)), "mae_gradient holds nulls"),
        (replaced("mae_gradient", with_an_element_more), "one number for each element"),
        (
            replaced("mae_gradient", without_first_numbers),
            "one number for each element",
        ),
    ],
)
def test_an_answer_to_something_else_is_no_answer(change, words):
    def other(request):
        return answer_with(change(scores_of(request)))

    _, posts, _, error = play([other], BOTH, options=ScoreOptions(gradients=True))
    assert isinstance(error, UnexpectedAnswer)
    assert words in str(error)
    assert error.request_id
    assert len(posts) == 1


def named(request_id):
    """Answer under this id."""

    def respond(request):
        response = answer(request)
        response.headers["x-request-id"] = request_id
        return response

    return respond


OTHER = problem(422, headers={"x-request-id": "lossclient-07-0:4-0:1-1"})


@pytest.mark.parametrize("outcome", [named("lossclient-07-0:4-0:1-1"), OTHER])
def test_the_answer_to_another_request_is_no_answer(outcome):
    tables, posts, _, error = play([outcome, answer])
    assert error is None
    assert tables[0]["mae"].to_pylist() == [1, 1, 1, 1]
    assert len(posts) == 2
    _, posts, _, error = play([outcome] * 2, retries=Retries(1), server="http://a:1")
    assert type(error) is UnexpectedAnswer
    assert error.request_id == posts[-1].headers["X-Request-Id"]
    for words in ("lossclient-07-0:4-0:1-1", error.request_id, "http://a:1"):
        assert words in str(error)


@pytest.mark.parametrize("given", [None, "", "3f1c8a8e-9d9f-4a53-a3e5-6d0a5ff3e2f5", "x, {own}"])
def test_gateways_may_strip_ids_and_put_others_in_their_place(given):
    def respond(request):
        return (
            answer(request) if given is None else named(given.format(own="call-0:4-0:1-1"))(request)
        )

    _, posts, _, error = play([respond], call_id="call")
    assert error is None
    assert len(posts) == 1


def test_the_answer_to_another_request_is_known_without_its_id():
    """Of another call with the same shapes, and of another window of the same call."""
    bodies = []

    def remembered(request):
        bodies.append(answer(request))
        return bodies[-1]

    alike = replace(FORECASTS, offsets=np.array([0, 1, 2]))
    play([remembered], Part(0, 1, (0,)), forecasts=alike, first=7)
    assert play([bodies[0]], Part(0, 1, (0,)), forecasts=alike, first=7)[3] is None
    assert isinstance(play([bodies[0]], Part(0, 1, (0,)), forecasts=alike)[3], UnexpectedAnswer)
    error = play([bodies[0]], Part(1, 2, (0,)), forecasts=alike, first=7)[3]
    assert isinstance(error, UnexpectedAnswer)
    assert "not those of the request" in str(error)


def test_calls_number_their_series_apart():
    assert len({Rules(ScoreOptions(), Retries(), SizeLimit()).first for _ in range(50)}) > 48
    assert all(0 <= wire.first_number() < 2**30 for _ in range(50))


def test_columns_of_an_answer_may_be_in_any_order():
    def turned(request):
        table = scores_of(request)
        return answer_with(table.select(table.column_names[::-1]))

    options = ScoreOptions(["smape", "mae"], gradients=True)
    ((table,), *_), ((turned_table,), *_) = (
        play([respond], BOTH, options=options) for respond in (answer, turned)
    )
    assert turned_table.equals(table)


def test_all_models_go_along_and_the_target_once():
    (table,), (post,), _, _ = play([answer], Part(1, 3, (0, 1)), first=70)
    assert post.query["group_columns"] == "series"
    sent = pa.ipc.open_stream(post.body).read_all()
    assert sent.to_pydict() == {
        "series": [71, 72, 72, 72],
        "y": [3, 4, 5, 6],
        "0": [2, 3, 4, 5],
        "1": [4, 5, 6, 7],
    }
    assert sent.schema.field("series").type == pa.int32()
    assert table["length"].to_pylist() == [1, 1, 3, 3]
    assert table["mape"].to_pylist() == pytest.approx(
        [1 / 3, 1 / 3, *[(1 / 4 + 1 / 5 + 1 / 6) / 3] * 2]
    )


def test_a_gradient_has_the_type_of_the_prediction():
    narrow = replace(FORECASTS, predictions=(FORECASTS.predictions[0].astype(np.float32),))

    def steep(request):
        table = scores_of(request)
        lists = [[1e300, -1e300], [0.1], [0.0] * 3, [1.0] * 4]
        column = pa.array(lists, table.schema.field("mae_gradient").type)
        return answer_with(replaced("mae_gradient", lambda _: column)(table))

    options = ScoreOptions(["mae"], gradients=True)
    (table,), *_ = play([steep], forecasts=narrow, options=options)
    largest = float(np.finfo(np.float32).max)
    first, second, *_ = table["mae_gradient"].to_pylist()
    assert (first, second) == ([largest, -largest], [np.float32(0.1)])
    assert table.schema.field("mae_gradient").type == pa.large_list(pa.float32())


def test_beside_a_wider_model_a_gradient_is_what_it_is_alone():
    first, second = FORECASTS.predictions
    mixed = replace(FORECASTS, predictions=(first.astype(np.float32), second))
    options = ScoreOptions(gradients=True)
    ((both,), (post,), *_), ((narrow,), *_), ((wide,), *_) = (
        play([answer], part, forecasts=mixed, options=options)
        for part in (BOTH, ALL, Part(0, 4, (1,)))
    )
    assert pa.ipc.open_stream(post.body).schema.types[2:] == [pa.float32(), pa.float64()]
    assert narrow.schema.field("mape_gradient").type == pa.large_list(pa.float32())
    apart = pa.concat_tables([narrow, wide], promote_options="permissive")
    assert both.equals(apart.take(pa.array([0, 4, 1, 5, 2, 6, 3, 7])))


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(503), Overloaded),
        (problem(429), Overloaded),
        (problem(502), Unavailable),
        (problem(504), DeadlineExceeded),
        (problem(500, retryable=True), Unavailable),
        (httpx.ConnectError("refused"), TransportError),
    ],
)
def test_it_gives_up_with_the_error_of_the_last_attempt(outcome, kind):
    _, posts, pauses, error = play([outcome] * 9, retries=Retries(attempts=3))
    assert type(error) is kind
    assert (len(posts), len(pauses)) == (4, 3)
    assert error.request_id


def test_retry_after_is_the_least():
    busy = problem(503, headers={"retry-after": "3"})
    dated = problem(503, headers={"retry-after": "Wed, 25 Nov 2026 00:00:09 GMT"})
    _, _, pauses, error = play([busy, dated, answer])
    assert error is None
    assert pauses == [3.125, 9.25]
    _, posts, _, error = play([problem(503, headers={"retry-after": "86400"})])
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 86400
    assert len(posts) == 1


def test_the_deadline_bounds_all_attempts_and_each_is_sent_what_is_left():
    _, posts, pauses, error = play(
        [problem(503)] * 9, took_s=2.0, deadline=105.0, retries=Retries(attempts=50)
    )
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, Overloaded)
    assert [post.headers["X-Request-Timeout-Ms"] for post in posts] == ["5000", "2875", "625"]
    assert [post.within_s for post in posts] == [5.0, 2.875, 0.625]
    assert pauses == [0.125, 0.25]


def test_it_does_not_wait_for_a_retry_past_the_deadline():
    _, posts, pauses, error = play([problem(503, headers={"retry-after": "10"})], deadline=105.0)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, Overloaded)
    assert str(error).startswith("5 s are left, and the next attempt would come after 10.1 s; ")
    assert str(error).endswith("the last attempt: 503: for a reason (request r1)")
    assert (len(posts), pauses) == (1, [])


def test_an_attempt_that_outlives_the_deadline_is_the_cause():
    _, posts, pauses, error = play([httpx.ReadTimeout("silence")], took_s=6.0, deadline=105.0)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, TransportError)
    assert error.request_id == error.__cause__.request_id
    assert str(error).startswith("the deadline has passed; the last attempt: no answer from")
    assert "ReadTimeout: silence" in str(error)
    assert (len(posts), pauses) == (1, [])


def test_nothing_is_sent_after_the_deadline():
    _, posts, _, error = play([answer], deadline=100.0)
    assert isinstance(error, DeadlineExceeded)
    assert not posts


def refuse_over(elements):
    def respond(request):
        table = pa.ipc.open_stream(request.content).read_all()
        sent = table.num_rows * (table.num_columns - 2)
        return problem(413) if sent > elements else answer(request)

    return respond


def test_what_is_too_large_is_halved_and_remembered():
    size_limit = SizeLimit()
    tables, posts, pauses, error = play([refuse_over(5)] * 9, size_limit=size_limit)
    assert error is None
    assert [length for table in tables for length in table["length"].to_pylist()] == [2, 1, 3, 4]
    assert pauses == []
    assert len(posts) == 5  # 10 elements, refused; 6, refused; 3, 3 and 4
    assert size_limit.bytes == 6 * (4 + 16) // 2

    _, posts, _, error = play([refuse_over(5)] * 9, Part(0, 4, (1,)), size_limit=size_limit)
    assert error is None
    assert len(posts) == 3  # none of them refused


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.lists(st.sampled_from([np.float32, np.float64]), min_size=1, max_size=4),
    st.integers(9, 60),
)
def test_no_two_requests_have_one_id(lengths, types, most):
    """Parts of parts that were too large, and their attempts, included."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(1.0, offsets[-1] + 1)
    predictions = tuple(values.astype(type_) for type_ in types)
    forecasts = Forecasts(offsets, values.astype("f4"), (None,) * len(types), predictions, Key)
    options, size_limit = ScoreOptions(["mae"]), SizeLimit()
    busy_at_first = itertools.cycle([problem(503), refuse_over(most)])
    posts = []
    for part in plan(forecasts, options, 2000):
        _, sent, _, error = play(
            busy_at_first,
            part,
            forecasts=forecasts,
            options=options,
            size_limit=size_limit,
            call_id="call",
        )
        assert error is None
        posts += sent
    ids = [post.headers["X-Request-Id"] for post in posts]
    assert len(set(ids)) == len(ids)


def test_an_id_is_one_that_the_service_takes():
    far = replace(FORECASTS, offsets=np.array([0, *[5] * (10**6), 10]))
    _, (post,), _, _ = play([problem(400)], Part(10**6, 10**6 + 1, (0, 1)), forecasts=far)
    assert re.fullmatch(
        r"lossclient-[0-9a-f]{16}-1000000:1000001-0:2-1", post.headers["X-Request-Id"]
    )


def test_calls_with_and_without_gradients_learn_of_one_another():
    """What is too large by its body is so with gradients and without."""
    size_limit = SizeLimit()
    for gradients, wanted in ((False, 5), (True, 3), (False, 3)):
        options = ScoreOptions(gradients=gradients)
        _, posts, _, error = play([refuse_over(5)] * 9, options=options, size_limit=size_limit)
        assert error is None
        assert len(posts) == wanted
        assert size_limit.bytes == 6 * (4 + 16) // 2


def test_one_series_that_is_too_long_teaches_nothing_about_the_others():
    size_limit = SizeLimit()
    _, posts, _, error = play([refuse_over(3)] * 9, Part(2, 4, (1,)), size_limit=size_limit)
    assert isinstance(error, TooLarge)
    assert len(posts) == 3
    assert size_limit.bytes == math.inf


def test_a_series_that_is_too_large_with_all_models_goes_with_fewer():
    size_limit = SizeLimit()
    tables, posts, _, error = play([refuse_over(6)] * 9, BOTH, size_limit=size_limit)
    assert error is None
    whole = pa.concat_tables(tables)
    assert whole["length"].to_pylist() == [2, 2, 1, 1, 3, 3, 4, 4]
    (at_once,), *_ = play([answer], BOTH)
    assert whole.equals(at_once)
    assert (
        len(posts) == 6
    )  # 20 elements and 12, refused; 6 and 6; 4 and 4, as 8 is known to be too much
    tables, posts, _, error = play([refuse_over(6)] * 9, BOTH, size_limit=size_limit)
    assert pa.concat_tables(tables).equals(at_once)
    assert len(posts) == 4  # none of them refused


def test_a_single_series_of_one_model_cannot_be_halved():
    _, _, _, error = play([refuse_over(3)] * 20, BOTH)
    assert isinstance(error, TooLarge)
    assert "'d'" in error.__notes__[0]


def test_faults_are_named_as_the_caller_knows_them():
    errors = [
        {"pointer": "/1/5", "detail": "of the series series=7 is missing or not finite"},
        {"pointer": "/y/0", "detail": "is missing or not finite"},
        {"pointer": "/0/3", "detail": "is missing or not finite"},
        {"pointer": "?losses", "detail": "unknown loss"},
        {"pointer": "/y/7", "detail": "of nowhere"},
        {"pointer": "/2/0", "detail": "of no model"},
        {"pointer": "/series/0", "detail": "of the wire"},
        {"pointer": "/y/" + "9" * 5000, "detail": "of no number"},
    ]
    response = problem(422, errors=errors, error_count=30)
    _, _, _, error = play([response], Part(2, 4, (0, 1)))
    assert isinstance(error, InvalidValues)
    first, second, third, option, *others = error.errors
    assert (first.id, first.cutoff, first.model) == ("d", 2023, "Theta")
    assert (first.side, first.position) == ("prediction", 2)
    assert first.row == 9 - 8  # the element at 6 + 2, in rows that were reversed
    assert first.detail == "is missing or not finite"
    assert (second.id, second.side, second.model) == ("c", "target", None)
    assert (third.id, third.position, third.model) == ("d", 0, "Naive")
    assert (option.pointer, option.id, option.side) == ("?losses", None, None)
    assert [other.id for other in others] == [None] * 4
    assert error.count == 30
    text = str(error)
    assert "series 'd' at cutoff 2023, model Theta: prediction 2 (row 1) is missing" in text
    assert "and 22 more" in text
    assert "request r1" in text
    assert error.detail == "30 faults were found"


@pytest.mark.parametrize(
    "detail",
    [
        "of the series series=7 is missing",
        "is missing, of the series series=7",
        "is missing in series series=7",
        "series=7 is missing",
        "of series=7, is missing",
    ],
)
@pytest.mark.parametrize("pointer", ["/1/5", "/series/0"])
def test_no_number_of_the_wire_is_in_a_message(detail, pointer):
    """The headline names the single fault as the caller knows it, whatever the service says."""
    headline = f"{pointer} {detail}"
    faults = [{"pointer": pointer, "detail": detail}]
    response = problem(422, errors=faults, error_count=1, detail=headline)
    _, _, _, error = play([response], Part(2, 4, (0, 1)))
    place = {"/1/5": "series 'd' at cutoff 2023, model Theta: prediction 2 (row 1)"}
    words = f"{place.get(pointer, pointer)} is missing"
    assert (error.detail, error.args) == (words, (words,))
    assert str(error) == f"422: {words} (request r1)"
    _, _, _, error = play([problem(422, detail=headline)])
    assert str(error) == f"422: {pointer} is missing (request r1)"


def test_a_problem_document_may_be_anything():
    for body in (
        b"[]",
        b"nonsense",
        b"\xff",
        b'{"detail": null}',
        b'{"errors": 5, "error_count": "x"}',
        b'{"errors": [3]}',
        b"[" * 100_000,
    ):
        response = httpx.Response(
            422, content=body, headers={"content-type": "application/problem+json"}
        )
        _, _, _, error = play([response])
        assert isinstance(error, InvalidValues)
        assert error.errors == ()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://a.test/base/score?losses=mae", "base_url should be https://a.test/base"),
        ("/v2/score/", "base_url should be http://a.test/v2"),
        ("http://a.test/base/score/?losses=mae", "a proxy before the service changes its paths"),
        ("https://login.test/?next=/base/score", "is it a page to log in at?"),
        ("http://[", "is it a page to log in at?"),
    ],
)
def test_a_redirect_names_its_location(location, words):
    reply = httpx.Response(307, headers={"location": location})
    _, posts, _, error = play([reply], server="http://a.test/base")
    assert isinstance(error, UnexpectedAnswer)
    assert f"redirected to {location}, which is not followed; {words}" in str(error)
    assert len(posts) == 1


@pytest.mark.parametrize("status", [404, 405])
def test_a_wrong_path_is_named(status):
    _, _, _, error = play([problem(status)], server="http://a.test/score")
    assert "no POST http://a.test/score/score; base_url is where the service is" in str(error)


PAGE = b"""<!DOCTYPE html>
<html><head><title>Bad&nbsp;Gateway</title><style>h1 { color: red }</style>
<script type="module">if (1 < 2) alert("x")</script><!-- <b>secret</b> --></head>
<body><h1>Error 1033</h1> <p>Ray&nbsp;ID: <b>42</b></p></body></html>"""


@pytest.mark.parametrize(
    ("body", "type_", "words"),
    [
        (PAGE, "text/html; charset=UTF-8", "Bad Gateway Error 1033 Ray ID: 42"),
        (PAGE, None, "Bad Gateway Error 1033 Ray ID: 42"),
        (b"<html><style>" + b"x" * 10**6, "text/html", "no body"),
        (b"upstream  connect\nerror" + b"!" * 300, "text/plain", "upstream connect error!!!"),
        (b"a < b", "text/plain", "a < b"),
        (b"", None, "no body"),
    ],
)
def test_pages_of_proxies_are_shown_as_a_reader_sees_them(body, type_, words):
    headers = {} if type_ is None else {"content-type": type_}
    for status in (200, 400):
        _, _, _, error = play([httpx.Response(status, content=body, headers=headers)])
        assert words in str(error)
        assert "<style" not in str(error)
        assert len(str(error)) < 350


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_bodies_are_compressed_on_request(coding):
    def unpack(request):
        raw = pa.input_stream(pa.BufferReader(request.content), compression=coding).read()
        return answer(httpx.Request("POST", request.url, content=raw))

    tables, posts, _, error = play([unpack], compression=coding)
    assert error is None
    assert tables[0]["mae"].to_pylist() == [1, 1, 1, 1]
    assert posts[0].headers["Content-Encoding"] == coding
    raw = wire.encode(FORECASTS, ALL)
    assert len(wire.compress(memoryview(bytes(100_000)), coding)) < 1000
    assert bytes(wire.compress(raw, coding)) == pa.compress(raw, codec=coding, asbytes=True)


MOVES = "\x1b[2J\x9b1A\u202e\u2028"


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.Response(500, content=MOVES.encode()),
        httpx.Response(200, content=MOVES.encode()),
        httpx.Response(307, headers={"location": f"/{MOVES}".encode()}),
        httpx.Response(400, headers={"content-encoding": MOVES.encode()}),
        problem(400, detail=MOVES),
        problem(422, detail=MOVES, errors=[{"pointer": MOVES, "detail": MOVES}] * 2),
        problem(504, detail=MOVES, headers={"x-request-id": MOVES.encode()}),
        problem(400, headers={"x-request-id": f"lossclient-{MOVES}".encode()}),
        answer_with(pa.table({MOVES: [{MOVES: 1}]})),
    ],
)
def test_a_stranger_moves_no_cursor(outcome):
    _, _, _, error = play([outcome], retries=Retries(0))
    assert str(error).replace("\n", "").isprintable()
    assert "\\x1b[2J" in str(error)


def test_a_fault_shows_a_strangers_model():
    fault = ValueFault("/0/0", "is null", id=MOVES, cutoff=MOVES, model=MOVES, side="prediction")
    assert str(fault).isprintable()
    assert fault.model == MOVES


def test_a_long_detail_is_cut():
    faults = [{"pointer": "/y/0", "detail": " " * 30_000}]
    _, _, _, error = play([problem(422, detail=" " * 30_000 + "x", errors=faults)])
    assert len(str(error)) < 5000


def test_no_more_faults_than_are_listed():
    faults = [{"pointer": "/y/0", "detail": "is wrong"}] * 30
    _, _, _, error = play([problem(422, errors=faults, error_count=40)])
    assert (len(error.errors), error.count) == (20, 40)
