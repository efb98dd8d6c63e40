"""docker-compose.yml is valid, starts what its head says, and contains what it starts."""

import re
import shlex
import subprocess
import sys

import pytest
from compose import (
    FILE,
    FOREIGN,
    SCORERS,
    SERVICES,
    VOLUMES,
    bind_mounts,
    mounts,
    port_of,
    seconds,
    size,
    started,
    tmpfs,
)
from conftest import ROOT
from sizes import IDLE_BYTES, KEPT_BYTES, PINNED_BYTES, most_memory

from loss_scoring.service.settings import Settings

OPERATIONS = (ROOT / "docs/operations.md").read_text()
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
every_scorer = pytest.mark.parametrize("service", SCORERS.values(), ids=SCORERS)


def check_schema(path):
    """Return whether the published schema of Compose takes a file, and what is said of it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_schema_of_compose_takes_it():
    fits, said = check_schema(FILE)
    assert fits, said


def test_the_schema_of_compose_does_not_take_everything(tmp_path):
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(FILE.read_text().replace("pids_limit: 2048", "pid_limit: 2048"))
    fits, said = check_schema(wrong)
    assert not fits
    assert "pid_limit" in said


def test_profiles_start_what_is_expected_of_them():
    watching = {"prometheus", "grafana"}
    assert started() == {"scorer"}
    assert started("cpu") == {"scorer-cpu"}
    assert started("gpu", "observability") == {"scorer"} | watching
    assert started("cpu", "observability") == {"scorer-cpu"} | watching
    for one in SERVICES.values():
        for needed in one.get("depends_on", ()):
            assert one["profiles"] == SERVICES[needed]["profiles"]


@pytest.mark.parametrize("text", [FILE.read_text(), OPERATIONS], ids=["head", "operations"])
def test_commands_that_are_shown_name_profiles_that_exist(text):
    commands = re.findall(r"docker compose (--profile .*? (?:up|down))\b", text)
    known = {profile for one in SERVICES.values() for profile in one["profiles"]} | {"*"}
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert {words[i + 1] for i, word in enumerate(words) if word == "--profile"} <= known


@every_service
def test_containers_are_contained(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert size(service["mem_limit"]) >= 256 << 20
    assert 100 <= service["pids_limit"] <= 4096
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & service.keys()
    for options in tmpfs(service).values():
        assert {"nosuid", "nodev"} <= set(options)
        (limit,) = (option[5:] for option in options if option.startswith("size="))
        assert size(limit) < size(service["mem_limit"]) / 4


@every_service
def test_ports_are_open_to_this_machine_alone(service):
    (entry,) = service["ports"]
    assert entry.startswith("127.0.0.1:")
    assert port_of(service) > 1023


@every_service
def test_what_is_mounted_exists_and_only_volumes_can_be_written(service):
    for path in bind_mounts(service).values():
        assert path.exists(), path
    for source, _, mode in mounts(service):
        assert (source in VOLUMES) if mode == "rw" else source.startswith("./deploy/")


@pytest.mark.parametrize("service", FOREIGN.values(), ids=FOREIGN)
def test_images_of_others_have_a_version_and_a_check(service):
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"


@every_scorer
def test_what_the_service_is_told_are_settings_that_it_takes(service):
    told = service["environment"]
    names = {name.removeprefix("LOSS_SCORING_").lower() for name in told}
    assert all(name.startswith("LOSS_SCORING_") for name in told)
    assert names <= set(Settings.model_fields)
    settings_of(service)


def settings_of(service):
    told = service["environment"].items()
    return Settings(**{name.removeprefix("LOSS_SCORING_").lower(): value for name, value in told})


def test_who_loses_a_gpu_is_started_again():
    """Docker does so when a container ends, which one process does not then; a supervisor does."""
    assert settings_of(SERVICES["scorer"]).frontends >= 1


def test_sizes_are_those_of_operations():
    found = re.search(
        r"compile its loops (\d+)\. .*? (\d+) MiB that are kept", OPERATIONS, re.DOTALL
    )
    (pinned,) = re.findall(r"add (\d+) MiB of pinned memory", OPERATIONS)
    idle, kept = found.groups()
    assert (int(idle) * 10**6, int(kept) << 20) == (IDLE_BYTES, KEPT_BYTES)
    assert int(pinned) << 20 == PINNED_BYTES


def test_each_has_the_device_that_it_asks_for():
    (reserved,) = SERVICES["scorer"]["deploy"]["resources"]["reservations"]["devices"]
    assert (reserved["driver"], reserved["capabilities"]) == ("nvidia", ["gpu"])
    assert settings_of(SERVICES["scorer"]).device == "cuda"
    assert "deploy" not in SERVICES["scorer-cpu"]
    assert settings_of(SERVICES["scorer-cpu"]).device == "cpu"


@every_scorer
def test_each_is_built_for_its_device_under_a_name_of_its_own(service):
    assert re.search(r"^ARG VARIANT=", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    variant = settings_of(service).device
    assert service["build"] == {"context": ".", "args": {"VARIANT": variant}}
    assert service["image"] == f"loss-scoring:{variant}"


@every_scorer
def test_the_healthcheck_is_that_of_the_image(service):
    assert "healthcheck" not in service
    assert re.search(r"^HEALTHCHECK (?!NONE)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@every_scorer
def test_the_engine_waits_longer_than_the_service_drains(service):
    assert seconds(service["stop_grace_period"]) >= settings_of(service).shutdown_s + 5
    assert "five seconds longer than `shutdown_s`" in OPERATIONS


@every_scorer
def test_memory_is_what_operations_says_and_more(service):
    (room,) = tmpfs(service).values()
    (held,) = (size(option[5:]) for option in room if option.startswith("size="))
    assert size(service["mem_limit"]) >= most_memory(settings_of(service)) + held
    assert service["memswap_limit"] == service["mem_limit"]


@every_scorer
def test_threads_of_a_large_machine_have_room(service):
    """Four a core in each of four processes, on 96 cores, and a few tens."""
    assert service["pids_limit"] >= 4 * (4 * 96 + 50)


@every_scorer
def test_what_is_written_has_a_place(service):
    """Front ends keep their counters in /tmp."""
    assert "mode=1777" in tmpfs(service)["/tmp"]  # noqa: S108 - of the container


def test_files_with_keys_cannot_be_committed():
    """The service reads scorer.env where it is there, and git does not see it."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for service in SCORERS.values():
        (file,) = service["env_file"]
        assert file["required"] is False
        assert file["path"] in ignored
    assert "docker-compose.override.yml" in ignored
