"""Prometheus and Grafana of docker-compose.yml find their files, each other and the service."""

import json
import shutil
import subprocess
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
import yaml
from compose import SCORERS, SERVICES, bind_mounts, port_of
from conftest import ROOT

from loss_scoring.service.settings import Settings

FOLDER = ROOT / "deploy/observability"
PROMETHEUS, GRAFANA = SERVICES["prometheus"], SERVICES["grafana"]
CONFIGURATION = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
PROVISIONING = PurePosixPath("/etc/grafana/provisioning")
PROMTOOL = shutil.which("promtool")


def provisioned(kind):
    """Return the one document that Grafana finds in a folder of its provisioning."""
    (file,) = bind_mounts(GRAFANA)[PROVISIONING / kind].iterdir()
    assert file.suffix in {".yml", ".yaml"}
    document = yaml.safe_load(file.read_text())
    assert document["apiVersion"] == 1
    return document


def flag(name):
    (value,) = (
        word.removeprefix(f"--{name}=")
        for word in PROMETHEUS["command"]
        if word.startswith(f"--{name}=")
    )
    return PurePosixPath(value)


@pytest.fixture
def inside(tmp_path):
    """The mounted files of Prometheus where its container has them, below a folder."""
    for where, path in bind_mounts(PROMETHEUS).items():
        place = tmp_path / where.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return lambda where: tmp_path / PurePosixPath(where).relative_to("/")


def test_prometheus_finds_its_configuration_and_rules(inside):
    file = inside(flag("config.file"))
    assert file.is_file()
    for rules in CONFIGURATION["rule_files"]:
        assert (file.parent / rules).read_text() == (FOLDER / "alerts.yml").read_text()
    volumes = [volume for volume in PROMETHEUS["volumes"] if not volume.startswith("./")]
    assert volumes == [f"prometheus:{flag('storage.tsdb.path')}"]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt: prometheus)")
def test_promtool_takes_what_the_container_has(inside):
    command = [PROMTOOL, "check", "config", inside(flag("config.file"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    assert f"{sum(len(group['rules']) for group in rules)} rules found" in done.stdout


def test_both_scorers_are_where_prometheus_looks():
    (job,) = CONFIGURATION["scrape_configs"]
    ((target,),) = (one["targets"] for one in job["static_configs"])
    host, port = target.split(":")
    for service in SCORERS.values():
        assert host in service["networks"]["default"]["aliases"]
        assert int(port) == port_of(service) == Settings.model_fields["port"].default


def test_grafana_reads_from_prometheus():
    (source,) = provisioned("datasources")["datasources"]
    assert source["type"] == "prometheus"
    assert source["access"] == "proxy"
    url = urlsplit(source["url"])
    assert (url.scheme, url.hostname) == ("http", "prometheus")
    assert url.port == port_of(SERVICES[url.hostname])
    assert source["jsonData"]["timeInterval"] == CONFIGURATION["global"]["scrape_interval"]


def test_the_dashboard_is_where_grafana_looks_and_is_its_home():
    (provider,) = provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    (at,) = (at for at, path in bind_mounts(GRAFANA).items() if path.name == "dashboard.json")
    assert str(at.parent) == provider["options"]["path"]
    assert at.suffix == ".json"
    assert GRAFANA["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(at)


def test_all_that_the_dashboard_asks_goes_to_the_provisioned_source():
    """It asks for a data source by type; as there is one of that type, the choice falls on it."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    choice = variables.pop("datasource")
    (source,) = provisioned("datasources")["datasources"]
    assert (choice["type"], choice["query"]) == ("datasource", source["type"])
    assert source["isDefault"] is True
    assert not choice.get("regex")
    assert not choice["current"] or choice["current"]["value"] == source["uid"]
    asked = [one["datasource"] for one in variables.values()]
    for panel in dashboard["panels"]:
        asked += [
            one["datasource"] for one in (panel, *panel.get("targets", ())) if "datasource" in one
        ]
    assert asked
    assert all(one == {"type": source["type"], "uid": "${datasource}"} for one in asked)


def test_nobody_can_log_in_with_a_password_that_everybody_knows():
    told = GRAFANA["environment"]
    assert told["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert told["GF_AUTH_BASIC_ENABLED"] == "false"
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
