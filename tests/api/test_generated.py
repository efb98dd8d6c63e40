"""Whoever knows nothing but /openapi.json calls the service: a generated client, the page at /docs.

Both send what the document calls a default, so what they send of their own accord must be right.
`make test-generated` brings the generator; the browser is Debian's package chromium.
"""

import shutil
import subprocess
import sys

import pytest
from browser import CHROMIUM, page_of
from conftest import ROOT
from wire import stream, table_of

GENERATOR = shutil.which(
    "openapi-python-client", path=f"{ROOT / '.venv-generated/bin'}:{sys.exec_prefix}/bin"
)
SERIES = [
    {"id": "a", "prediction": [102.0, 118.5], "target": [100.0, 120.0]},
    {"id": "b", "prediction": [0.5], "target": [0.0]},
]
CALLS = """
import sys
from loss_scoring_client import Client
from loss_scoring_client.api.operation import livez, readyz, version
from loss_scoring_client.api.scoring import losses, score, score_v1
from loss_scoring_client.models import Problem, ScoreRequest, Scores, Series

client = Client(base_url=sys.argv[1])
series = [Series(prediction=[102.0, 118.5], target=[100.0, 120.0]), Series(prediction=[0.5], target=[0.0])]
scores = score.sync(client=client, body=ScoreRequest(series=series))
assert isinstance(scores, Scores), scores
assert scores.losses["mae"] == [1.75, 0.5]
assert list(scores.losses.additional_properties) == ["mae", "mape", "smape"]
refused = score.sync(client=client, body=ScoreRequest(series=[Series(prediction=[1.0], target=[])]))
assert isinstance(refused, Problem), refused
assert refused.errors[0].pointer == "/series/0/target"
assert score_v1.sync(client=client, body=ScoreRequest(series=series)) == scores
assert losses.sync(client=client)[0]["name"] == "mae"
assert version.sync(client=client)["name"] == "loss-scoring"
for probe in (livez, readyz):
    assert probe.sync_detailed(client=client).status_code == 200
"""
OPEN = """
(await shown('#operations-scoring-score .opblock-summary-control')).click();
(await shown('.try-out__btn')).click();
await shown('.execute');
"""
EXECUTE = """
(await shown('.execute')).click();
const status = await shown('.live-responses-table tr.response .response-col_status');
const body = await shown('.live-responses-table .microlight');
return [status.innerText.trim(), JSON.parse(body.innerText)];
"""


@pytest.mark.skipif(GENERATOR is None, reason="make test-generated brings the generator")
def test_a_generated_client_scores(url, tmp_path):
    made = tmp_path / "made"
    subprocess.run(
        [GENERATOR, "generate", "--url", f"{url}/openapi.json", "--output-path", made], check=True
    )
    python = GENERATOR.replace("openapi-python-client", "python")
    subprocess.run([python, "-c", CALLS, url], check=True, cwd=made)


@pytest.fixture
def page(url):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with page_of(f"{url}/docs") as page:
        page.value(OPEN)
        yield page


def test_the_page_scores_what_it_fills_in_itself(page):
    status, scores = page.value(EXECUTE)
    assert (status, scores["losses"]["mae"]) == ("200", [1.75, 0.5]), scores


@pytest.mark.parametrize(
    ("options", "losses"),
    [(None, ["mae", "mape", "smape"]), ('{"losses": "mae", "gradients": true}', ["mae"])],
)
def test_the_page_scores_a_file_in_arrow(page, tmp_path, options, losses):
    body = tmp_path / "series.arrow"
    body.write_bytes(stream(table_of(SERIES)))
    page.value("""
    const type = await shown('.opblock-section-request-body select');
    type.value = 'application/vnd.apache.arrow.stream';
    type.dispatchEvent(new Event('change', {bubbles: true}));
    """)
    page.choose_file(".opblock-section-request-body input[type=file]", str(body))
    if options is not None:
        page.value(f"""
        const text = await shown('.parameters-container textarea');
        Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(text, '{options}');
        text.dispatchEvent(new Event('input', {{bubbles: true}}));
        text.dispatchEvent(new Event('change', {{bubbles: true}}));
        """)
    status, scores = page.value(EXECUTE)
    assert (status, list(scores["losses"])) == ("200", losses), scores
    assert scores["ids"] == ["a", "b"]
    assert ("gradients" in scores) == (options is not None)
