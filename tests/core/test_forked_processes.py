"""Children that are forked after, or during, a large batch score as their parent does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.timeout(300)
def test_forked_children_score_as_their_parent():
    script = Path(__file__).with_name("forking.py")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "all children are done\n"), done.stderr
