"""What is served at / and below it: whole, of one origin, under a strict policy."""

import re

import httpx
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.service.api.page import FILES, PAGES, TYPES

FOLDER = ROOT / "service/api/page"


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_served_as_it_is(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content == FILES[path].read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[FILES[path].suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(
        part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}


def test_every_file_is_served_and_refers_to_others_of_its_origin():
    assert {file.name for file in FOLDER.iterdir() if file.is_file()} == {
        "__init__.py",
        *(file.name for file in FILES.values()),
    }
    served = {path.removeprefix("/page/") for path in FILES}
    for file in FILES.values():
        text = file.read_text()
        for link in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert f"/{link}" in {*FILES, *PAGES}, link
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert module in served
        elsewhere = re.findall(r"https?://[^\s\"'`]+", text)
        assert set(elsewhere) <= {
            "http://www.w3.org/2000/svg",
            "https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc",
        }, file
        assert " style=" not in text
        assert not re.search(r"\son\w+=\"|innerHTML|eval\(", text)


def test_an_absent_file_is_a_problem(client):
    answer = client.get("/page/absent.js")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_page_is_counted_by_its_route(client):
    client.get("/page/dom.js")
    assert 'route="/page/dom.js",status="200"' in client.get("/metrics").text


def test_swagger_needs_no_other_path_without_a_key(client):
    page = client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r"url: '([^']+)'", page)
    assert {httpx.URL(link).path for link in links} <= PAGES


def test_the_example_is_of_the_real_forecasts():
    types = {"cutoff": "timestamp[ns]", "ds": "timestamp[ns]"}
    convert = pyarrow.csv.ConvertOptions(column_types=types)
    example = pyarrow.csv.read_csv(FOLDER / "example.csv", convert_options=convert).to_pandas()
    keys = ["unique_id", "cutoff", "ds"]
    real = pq.read_table(ROOT / "examples/data/forecasts.parquet").to_pandas()
    both = example.merge(real, on=keys, suffixes=("", "_real"))
    assert len(both) == len(example) == 552
    for name in ("y", "SeasonalNaive", "AutoETS", "Theta"):
        assert both[name].to_list() == pytest.approx(
            both[f"{name}_real"].to_list(), rel=1e-5, nan_ok=True
        )
