"""The page that ``loss-scoring report`` writes, in a browser."""

import subprocess

import pytest
from conftest import ROOT
from instance import LOSS_SCORING

pytest.importorskip("playwright", reason="make test-page installs it in an environment of its own")
pytestmark = pytest.mark.page
pytest_plugins = ["browser"]
EXAMPLE = ROOT / "examples/data/forecasts.parquet"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    scores, page = folder / "scores.parquet", folder / "report.html"
    for command in (
        ("score", EXAMPLE, "--missing", "skip", "-o", scores),
        ("report", scores, "--loss", "smape", "--forecasts", EXAMPLE, "-o", page),
    ):
        subprocess.run([LOSS_SCORING, *command], check=True, capture_output=True)
    return page


def test_it_shows_all_asks_for_nothing_and_is_accessible(open_page, check_accessible, report, way):
    # axe-core is a script, which the policy of the page would keep out.
    page = open_page(report.as_uri(), bypass_csp=True, **way)
    sizes = [drawing.bounding_box() for drawing in page.locator("svg").all()]
    assert sum(size["width"] > 100 and size["height"] > 50 for size in sizes) == 9
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    check_accessible(page)
