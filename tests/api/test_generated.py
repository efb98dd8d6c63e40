"""A client generated from /openapi.json calls the service; `make test-generated` brings the generator.

It sends what the document calls a default, so what it sends of its own accord must be right.
"""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

GENERATOR = shutil.which(
    "openapi-python-client", path=f"{ROOT / '.venv-generated/bin'}:{sys.exec_prefix}/bin"
)
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


@pytest.mark.skipif(GENERATOR is None, reason="make test-generated brings the generator")
def test_a_generated_client_scores(url, tmp_path):
    made = tmp_path / "made"
    subprocess.run(
        [GENERATOR, "generate", "--url", f"{url}/openapi.json", "--output-path", made], check=True
    )
    python = GENERATOR.replace("openapi-python-client", "python")
    subprocess.run([python, "-c", CALLS, url], check=True, cwd=made)
