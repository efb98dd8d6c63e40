"""The description is valid, complete, and its examples run."""

import re
from importlib.metadata import version

import pyarrow as pa
import pytest
from openapi_spec_validator import validate
from wire import ARROW

import lossclient
from loss_scoring import service
from loss_scoring.service.codecs.options import QUERY_OPTIONS


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def test_it_is_valid_and_documents_both_formats(document):
    validate(document)
    operation = document["paths"]["/score"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", ARROW}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", ARROW}
    assert [p["name"] for p in operation["parameters"]] == ["options", "X-Request-Timeout-Ms"]
    options = document["components"]["schemas"]["QueryOptions"]
    assert list(options["properties"]) == list(QUERY_OPTIONS)


def test_its_version_is_that_of_the_package(document):
    assert document["info"]["version"] == service.__version__ == version("loss-scoring")
    assert lossclient.__version__ == version("lossclient")


def test_every_operation_has_a_short_name_and_a_tag(document):
    tags = {tag["name"] for tag in document["tags"]}
    names = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names[operation["operationId"]] = path
            assert set(operation["tags"]) < tags
            assert operation["summary"]
    assert names == {
        **{path[1:]: path for path in document["paths"] if not path.startswith("/v1/")},
        "score_v1": "/v1/score",
        "losses_v1": "/v1/losses",
    }
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    assert [server["url"] for server in document["servers"]] == ["/"]


def test_the_example_of_an_answer_is_that_to_the_smallest_request(document, client):
    operation = document["paths"]["/score"]["post"]
    sent = operation["requestBody"]["content"]["application/json"]["examples"]["smallest"]["value"]
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert client.post("/score", json=sent).json() == shown


def test_json_examples_run(document, client):
    content = document["paths"]["/score"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert len(examples) >= 3
    for example in examples.values():
        answer = client.post("/score", json=example["value"])
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["ids"]) == len(example["value"]["series"])


@pytest.mark.parametrize("number", [0, 1])
def test_the_arrow_examples_run(document, url, capsys, number):
    samples = document["paths"]["/score"]["post"]["x-codeSamples"]
    assert len(samples) == 2
    source = samples[number]["source"].replace("http://127.0.0.1:8000", url)
    scope = {}
    exec(compile(source, "sample", "exec"), scope)  # noqa: S102 - our own document
    assert isinstance(scope["scores"], pa.Table)
    assert "store-1" in capsys.readouterr().out


def test_docs_work_offline(client):
    page = client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert all(link.startswith("/") for link in links), "a link leaves the service"
    assert all(client.get(link).status_code == 200 for link in links)
