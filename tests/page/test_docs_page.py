"""The page at /docs scores what it fills in itself, a file in Arrow, and with a key."""

import json

import pytest
from instance import instance
from wire import stream, table_of

pytest.importorskip("playwright", reason="make test-page installs it in an environment of its own")
pytestmark = pytest.mark.page
pytest_plugins = ["browser"]
KEY = "0123456789abcdef"
SERIES = [
    {"id": "a", "prediction": [102.0, 118.5], "target": [100.0, 120.0]},
    {"id": "b", "prediction": [0.5], "target": [0.0]},
]


def tried(page):
    """Open the form of POST /score."""
    page.click("#operations-scoring-score .opblock-summary-control")
    page.click(".try-out__btn")
    return page


def executed(page):
    """Send the form; return status and answer."""
    page.click(".execute")
    answer = page.inner_text(".live-responses-table .microlight")
    status = page.inner_text(".live-responses-table tr.response .response-col_status")
    return status.strip(), json.loads(answer)


@pytest.fixture
def page(open_page, url):
    return tried(open_page(f"{url}/docs"))


def test_the_page_scores_what_it_fills_in_itself(page):
    status, scores = executed(page)
    assert (status, scores["losses"]["mae"]) == ("200", [1.75, 0.5]), scores


@pytest.mark.parametrize(
    ("options", "losses"),
    [(None, ["mae", "mape", "smape"]), ('{"losses": "mae", "gradients": true}', ["mae"])],
)
def test_the_page_scores_a_file_in_arrow(page, tmp_path, options, losses):
    body = tmp_path / "series.arrow"
    body.write_bytes(stream(table_of(SERIES)))
    page.select_option(
        ".opblock-section-request-body select >> nth=0", "application/vnd.apache.arrow.stream"
    )
    page.set_input_files(".opblock-section-request-body input[type=file]", body)
    if options is not None:
        page.fill(".parameters-container textarea", options)
    status, scores = executed(page)
    assert (status, list(scores["losses"])) == ("200", losses), scores
    assert scores["ids"] == ["a", "b"]
    assert ("gradients" in scores) == (options is not None)


def test_with_keys_the_page_opens_and_scores_once_it_has_one(open_page):
    with instance(api_keys=KEY, device="cpu") as running:
        page = tried(open_page(f"{running.url}/docs", refusals=[401]))
        status, problem = executed(page)
        assert (status, problem["type"]) == ("401", "urn:loss-scoring:problem:unauthorized")
        page.click(".auth-wrapper .authorize")
        page.fill(".auth-container input", KEY)
        page.click(".auth-container button.authorize")
        page.click(".auth-container .btn-done")
        with page.expect_response("**/score") as response:
            page.click(".execute")
        assert response.value.status == 200
