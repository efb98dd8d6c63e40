"""The clients of Triton and KServe call the service; ``make test-oip`` brings them."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

PYTHON = ROOT / ".venv-oip/bin/python"
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-oip brings the clients")


def test_they_get_the_bits_of_score(url):
    script = Path(__file__).with_name("inference_clients.py")
    subprocess.run([PYTHON, script, url], check=True)


def test_the_example_of_the_page_runs(url):
    page = (ROOT / "docs/open-inference.md").read_text()
    (block,) = re.findall(r"```python\n(# not run[^`]+)```", page)
    source = block.replace("127.0.0.1:8000", url.removeprefix("http://"))
    ran = subprocess.run([PYTHON, "-c", source], check=True, stdout=subprocess.PIPE, text=True)
    assert ran.stdout == "(1000,)\n"
