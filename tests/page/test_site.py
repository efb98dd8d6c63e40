"""The site that ``make docs`` builds, in a browser."""

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("playwright", reason="make test-page installs it in an environment of its own")
pytestmark = pytest.mark.page
pytest_plugins = ["browser"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-c", ROOT / "docs", "-d", folder / "read"]
    subprocess.run([sys.executable, "-m", "sphinx", *options, ROOT, folder / "site"], check=True)
    return folder / "site"


@pytest.mark.parametrize("name", ["docs/index", "docs/reference", "docs/architecture", "docs/why"])
def test_pages_fit_and_load_nothing_from_elsewhere(open_page, site, way, name):
    page = open_page((site / f"{name}.html").as_uri(), **way)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_code_can_be_copied(open_page, site):
    page = open_page((site / "docs/index.html").as_uri())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.hover("div.highlight >> nth=0")
    page.click("button.copybtn >> nth=0")
    page.wait_for_selector("button.copybtn.success")
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -s")
