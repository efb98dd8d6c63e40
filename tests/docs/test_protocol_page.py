"""docs/protocol.md names what the service takes and answers: all of it, and nothing else."""

import re

import httpx
import pyarrow as pa
import pytest
from conftest import ROOT
from pages import DOCS, blocks, rows

from loss_scoring.service import errors
from loss_scoring.service.api.negotiation import FORMATS
from loss_scoring.service.codecs.options import (
    JSON_OPTIONS,
    MAX_GROUP_COLUMNS,
    PARAMETERS,
    QUERY_OPTIONS,
)
from loss_scoring.service.codecs.request import MAX_ID_BYTES
from loss_scoring.service.settings import Settings

PAGE = DOCS / "protocol.md"
LONG = DOCS / "long-form.md"
TEXT = PAGE.read_text()


def column(heading, number=0, page=PAGE):
    """Return the names in one column of a table."""
    return [name for row in rows(page, heading) for name in re.findall(r"`([^`]+)`", row[number])]


@pytest.fixture(scope="module")
def document(url):
    return httpx.get(f"{url}/openapi.json", timeout=60).json()


@pytest.fixture(scope="module")
def schemas(document):
    return document["components"]["schemas"]


@pytest.fixture(scope="module")
def operation(document):
    return document["paths"]["/score"]["post"]


def kinds(base=errors.ServiceError):
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


MANY = {"series": [{"id": "x" * 100, "prediction": [1], "target": [2]}] * 1000}
PROBLEMS = [kind for kind in kinds() if hasattr(kind, "slug")]


def test_fields(schemas):
    properties = schemas["ScoreRequest"]["properties"]
    assert column("Fields") == list(properties) == [*JSON_OPTIONS, "series"]
    assert sorted(column("Fields of a series")) == sorted(schemas["Series"]["properties"])
    assert sorted({*column("Parameters of losses")}) == PARAMETERS


def test_defaults(schemas):
    json = schemas["ScoreRequest"]["properties"]
    query = schemas["QueryOptions"]["properties"]
    for page, heading, schema in (
        (PAGE, "Fields", json),
        (PAGE, "Query parameters", query),
        (LONG, "Query parameters", query),
    ):
        for name, shown, *_ in rows(page, heading):
            found = schema[name.strip("`")]
            assert schema is json or "default" not in found, "it would be sent beside JSON"
            words = re.search(r"Default: (\w+)\.$", found.get("description", ""))
            default = words[1] if words else found.get("default")
            if isinstance(default, str | bool):
                assert shown == f"`{str(default).lower()}`", name


def test_choices_are_named(schemas):
    cells = {row[0].strip("`"): row[2] for row in rows(PAGE, "Fields")}
    properties = schemas["ScoreRequest"]["properties"]
    choices = {name: schema["enum"] for name, schema in properties.items() if "enum" in schema}
    assert set(choices) == {"missing", "zero_division", "dtype"}
    for name, allowed in choices.items():
        assert all(f"`{choice}`" in cells[name] for choice in allowed), name


def test_query_parameters(schemas):
    parameters = schemas["QueryOptions"]["properties"]
    named = column("Query parameters") + column("Query parameters", page=LONG)
    assert sorted([*named, *PARAMETERS]) == sorted(parameters) == sorted(QUERY_OPTIONS)


def test_answers(schemas):
    assert sorted(column("Members")) == sorted(schemas["Scores"]["properties"])
    assert sorted(column("The answer", page=LONG)) == sorted(schemas["LongScores"]["properties"])
    problem = schemas["Problem"]
    assert sorted(column("Members of a problem")) == sorted(problem["properties"])
    assert set(problem["required"]) <= set(column("Members of a problem"))


def test_columns_of_an_answer_in_arrow(client):
    body = {"gradients": True, "series": [{"prediction": [1], "target": [1]}]}
    answer = client.post("/score", json=body, headers={"Accept": FORMATS["arrow"]})
    found = pa.ipc.open_stream(answer.content).read_all().column_names
    shown = [row[1].strip("`") for row in rows(PAGE, "Members")]
    losses = ["mae", "mape", "smape"]
    assert sorted(found) == sorted(
        ["id", "length", *losses, "mape_masked", "smape_masked", *(f"{x}_gradient" for x in losses)]
    )
    assert shown == ["id", "length", "one column a loss", "<loss>_masked", "<loss>_gradient"]


def test_problem_types(operation):
    shown = {
        (int(status), slug.strip("`"), retryable == "yes")
        for status, slug, retryable, _ in rows(PAGE, "Problem types")
    }
    assert shown == {(kind.status, kind.slug, kind.retryable) for kind in PROBLEMS}
    statuses = {str(status) for status, *_ in shown} - {"401"}  # the document has it with keys
    assert statuses | {"200"} == set(operation["responses"])


def test_headers_of_a_request(operation):
    named = column("Headers of a request")
    described = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
    assert described <= set(named)
    assert len(set(named) & {"Content-Type", "Content-Encoding", "Accept", "Authorization"}) == 4
    types = next(row[2] for row in rows(PAGE, "Headers of a request") if "Type" in row[0])
    assert set(re.findall(r"`([^`]+)`", types)) == set(FORMATS.values())


READ = re.compile(rb'b"((?:x|accept|authorization|content)[a-z-]*)"')


def test_headers_that_the_code_reads_are_named():
    """Headers are looked up as bytes in lower case, in the layer of HTTP."""
    sources = b"".join(path.read_bytes() for path in (ROOT / "service").glob("[als]*/*.py"))
    read = {name.decode() for name in READ.findall(sources)}
    named = {name.lower() for name in column("Headers of a request")}
    own = {"content-length", "x-request-id", "x-gzip", "accept-encoding"}
    assert {name for name in named if name != "x-request-id"} <= read
    assert read - own <= named | {name.lower() for name in column("Headers of an answer")}


def test_headers_of_answers(client):
    named = {name.lower() for name in column("Headers of an answer")}
    seen = {name.lower() for kind in PROBLEMS for name in kind.headers} | {"retry-after"}
    for answer in (
        client.post("/score", json={"series": []}),
        client.post("/score", json=MANY, headers={"Accept-Encoding": "zstd"}),
        client.get("/score"),
        client.get("/nowhere"),
        client.post("/score", content=b"", headers={"Content-Type": "text/csv"}),
    ):
        seen |= set(answer.headers)
    assert named == seen - {"date", "content-type", "content-length"}


def test_stages_are_named(client):
    timing = client.post("/score", json={"series": [{"prediction": [1], "target": [1]}]})
    stages = re.findall(r"(\w+);dur", timing.headers["server-timing"])
    (shown,) = (row[2] for row in rows(PAGE, "Headers of an answer") if "Timing" in row[0])
    assert re.findall(r"`(\w+)`", shown) == stages


def test_paths(document):
    named = re.findall(r"`[A-Z]+ (/[\w./]*)`", TEXT)
    assert set(named) == {*document["paths"], "/", "/docs", "/openapi.json"}


def test_limits_that_the_page_states(client):
    defaults = Settings.model_fields
    (timeout,) = (row for row in rows(PAGE, "Headers of a request") if "Timeout" in row[0])
    assert timeout[1] == str(defaults["default_timeout_ms"].default)
    assert str(defaults["max_timeout_ms"].default) in timeout[2]
    assert f"{MAX_ID_BYTES} bytes" in TEXT
    assert errors.MAX_LISTED_ERRORS == 20
    (sent,) = (row[2] for row in rows(PAGE, "Headers of a request") if "Request-Id" in row[0])
    (most,) = re.findall(r"at most (\d+)", sent)
    (signs,) = re.findall(r"`([^`]+)`", sent)
    for length, kept in ((int(most), True), (int(most) + 1, False)):
        mine = (signs + "aZ9").ljust(length, "x")
        answer = client.get("/livez", headers={"X-Request-Id": mine})
        assert (answer.headers["x-request-id"] == mine) is kept
    assert f"at most {MAX_GROUP_COLUMNS}" in LONG.read_text()


def test_there_are_examples_of_both_formats():
    assert sum(block.kind == "json" for block in blocks(PAGE)) >= 6
    assert any("pa.ipc" in block.text for block in blocks(PAGE))
