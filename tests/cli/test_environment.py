"""Variables that begin like settings: which are taken, which are left alone, which refuse a start."""

import os
import subprocess

import pytest
from instance import SERVE, instance

from loss_scoring.service.api.auth import Keys
from loss_scoring.service.environment import check_names, is_link
from loss_scoring.service.settings import Settings

NAMES = Settings.model_fields
OF_KUBERNETES = {
    "LOSS_SCORING_SERVICE_HOST": "10.0.0.1",
    "LOSS_SCORING_SERVICE_PORT": "8000",
    "LOSS_SCORING_SERVICE_PORT_HTTP": "8000",
    "LOSS_SCORING_PORT": "tcp://10.0.0.1:8000",
    "LOSS_SCORING_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "LOSS_SCORING_PORT_8000_TCP_PROTO": "tcp",
    "LOSS_SCORING_PORT_8000_TCP_PORT": "8000",
    "LOSS_SCORING_PORT_8000_TCP_ADDR": "10.0.0.1",
    # Of a second Service, loss-scoring-gpu.
    "LOSS_SCORING_GPU_SERVICE_HOST": "10.0.0.2",
    "LOSS_SCORING_GPU_SERVICE_PORT_METRICS": "9000",
    "LOSS_SCORING_GPU_PORT": "udp://10.0.0.2:9000",
    "LOSS_SCORING_GPU_PORT_9000_UDP_ADDR": "10.0.0.2",
}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOSS_SCORING_MAXOPEN", "LOSS_SCORING_MAX_OPEN_BYTES"),
        ("LOSS_SCORING_MAX_OPEN", "LOSS_SCORING_MAX_OPEN_BYTES"),
        ("loss_scoring_logformat", "LOSS_SCORING_LOG_FORMAT"),
        ("LOSS_SCORING_FRONT_ENDS", "LOSS_SCORING_FRONTENDS"),
        ("LOSS_SCORING_API_KEY", "LOSS_SCORING_API_KEYS"),
        ("LOSS_SCORING__PORT", "LOSS_SCORING_PORT"),
        ("LOSSSCORING_PORT", "LOSS_SCORING_PORT"),
        ("LOSS-SCORING_PORT", "LOSS_SCORING_PORT"),
        ("LOSS_SCORING__SERVICE_HOST", None),
        ("LOSS_SCORING_XYZ", None),
        ("LOSS_SCORING_", None),
    ],
)
def test_a_misspelt_variable_is_refused_with_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=f"^{name} is not a setting") as refused:
        check_names({name: "1", "LOSS_SCORINGS": "", "PATH": ""}, NAMES)
    assert str(refused.value).partition("; ")[2] == (f"did you mean {meant}?" if meant else "")


def test_all_of_them_are_named():
    with pytest.raises(ValueError, match="LOSS_SCORING_A is not a setting\nLOSS_SCORING_B is not"):
        check_names({"LOSS_SCORING_B": "", "LOSS_SCORING_A": ""}, NAMES)


def test_settings_in_any_case_and_links_are_let_pass():
    check_names({f"LOSS_SCORING_{name.upper()}": "" for name in NAMES}, NAMES)
    check_names({"loss_scoring_port": "1", **OF_KUBERNETES}, NAMES)
    assert all(is_link(*item) for item in OF_KUBERNETES.items())
    assert not is_link("LOSS_SCORING_PORT", "8000")


@pytest.mark.parametrize("frontends", [0, 1])
def test_a_start_is_refused_before_anything_else(frontends):
    ended = subprocess.run(
        [*SERVE, "--port", "0", "--frontends", str(frontends)],
        env=os.environ | {"LOSS_SCORING_MAXOPEN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert (
        ended.stderr
        == "LOSS_SCORING_MAXOPEN is not a setting; did you mean LOSS_SCORING_MAX_OPEN_BYTES?\n"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_is_refused_by_its_name(name, value, monkeypatch):
    variable = f"LOSS_SCORING_{name.upper()}"
    monkeypatch.setenv(variable, value)
    if name == "cors_origins":
        assert Settings.from_environment() == Settings(cors_origins=None)
        return
    with pytest.raises(ValueError, match=f"{variable} .* ?(is empty|holds no key)"):
        Keys.of(Settings.from_environment())


@pytest.mark.parametrize("frontends", [0, 1])
@pytest.mark.parametrize("as_flag", [False, True])
def test_an_empty_host_does_not_listen_everywhere(frontends, as_flag):
    flags = ["--host", ""] if as_flag else []
    ended = subprocess.run(
        [*SERVE, "--port", "0", "--frontends", str(frontends), *flags],
        env=os.environ | ({} if as_flag else {"LOSS_SCORING_HOST": ""}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "LOSS_SCORING_HOST or its flag is empty" in ended.stderr


def test_a_link_is_not_taken_for_the_port(monkeypatch):
    monkeypatch.setenv("LOSS_SCORING_PORT", "tcp://10.0.0.1:8000")
    assert Settings.from_environment().port == 8000
    assert Settings(port=9).port == 9
    monkeypatch.setenv("LOSS_SCORING_PORT", "tcp:8000")
    with pytest.raises(ValueError, match="port"):
        Settings.from_environment()


@pytest.mark.parametrize("frontends", [0, 1])
def test_a_service_starts_beside_a_service_of_its_name(frontends):
    with instance(
        frontends=frontends, device="cpu", environment=OF_KUBERNETES, log_level="warning"
    ) as running:
        printed = running.log_text()
        assert printed == ""


def test_the_first_line_says_what_starts():
    with instance(device="cpu", api_keys="0123456789abcdef", max_timeout_ms=600_001) as running:
        log = running.log_text()
    first = log.splitlines()[0]
    assert "loss-scoring 0" in first
    assert (
        f" on cpu; settings: port={running.port}, device=cpu, max_timeout_ms=600001, api_keys=(hidden)"
        in first
    )
    assert "0123456789abcdef" not in log


def test_a_line_of_defaults():
    assert Settings().summary("cuda:0").endswith(" on cuda:0; settings: the defaults")
