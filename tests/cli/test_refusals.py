"""A service that cannot start prints one line, whatever processes it has."""

import os
import subprocess

import pytest
from instance import SERVE


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_keys_that_cannot_be_read_end_the_start_with_one_line(frontends, tmp_path):
    missing = tmp_path / "keys"
    given = ["--port", "0", "--frontends", frontends, "--api-keys-file", str(missing)]
    ended = subprocess.run(
        [*SERVE, *given], check=False, capture_output=True, text=True, timeout=200
    )
    (line,) = ended.stderr.splitlines()
    assert line.startswith("api_keys_file cannot be read: ")
    assert str(missing) in line
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_an_invalid_key_ends_the_start(frontends):
    environment = os.environ | {"LOSS_SCORING_API_KEYS": "short"}
    ended = subprocess.run(
        [*SERVE, "--port", "0", "--frontends", frontends],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
    )
    (line,) = ended.stderr.splitlines()
    assert line.startswith("LOSS_SCORING_API_KEYS, key 1: ")
    assert "short" not in line
    assert ended.returncode == 2
