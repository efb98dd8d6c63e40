"""Dashboard and alerts speak of metrics that exist, and promtool accepts and runs them."""

import json
import re
import shutil
import subprocess

import httpx
import pytest
import yaml
from conftest import ROOT
from scrape import families, scrape

FOLDER = ROOT / "deploy/observability"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (apt: prometheus)"
)


def plain(expression):
    """Put something in the place of Grafana's variables."""
    return expression.replace("$__rate_interval", "5m").replace("$", "")


def promtool(*arguments, cwd=FOLDER):
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def shown(url):
    """Labels and their values by sample, as a real service tells them."""
    body = {"series": [{"prediction": [1.0], "target": [2.0]}]}
    httpx.post(f"{url}/score", json=body, timeout=60).raise_for_status()
    found = {}
    for family in families(scrape(url)).values():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {"job": set(), "instance": set()})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.mark.parametrize("expression", [*SHOWN, *(rule["expr"] for rule in RULES)])
def test_metrics_that_are_queried_exist(expression, shown):
    names = re.findall(r"loss_scoring_\w+", expression)
    assert names or 'up{job="loss-scoring"}' in expression
    for name in names:
        assert name in shown
    for name, braces in re.findall(r"(loss_scoring_\w+)\{(.*?)\}", expression):
        for label, exactly, value in re.findall(r'(\w+)(=~?)"(.*?)"', braces):
            assert label in shown[name]
            if exactly == "=" or "$" not in value:
                wanted = set(value.split("|")) - {"500", "504", "429", "503"}
                assert wanted <= shown[name][label]
    for label in re.findall(r"by \((.*?)\)", expression):
        grouped = set(label.split(", ")) - {"namespace"}  # Prometheus adds it on Kubernetes
        assert any(grouped <= shown[name].keys() for name in names)


def test_every_metric_is_shown(shown):
    """A metric that nobody looks at is not worth its cost."""
    shown = " ".join(SHOWN)
    histograms = r"_(bucket|sum|count)$"
    for name in {re.sub(histograms, "", name) for name in shown}:
        assert name in shown, name


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_has_a_firing_and_a_quiet_case(rule):
    cases = [
        bool(case["exp_alerts"])
        for test in TESTS
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert sorted(cases) == [False, True]
    assert rule["annotations"]["runbook"].startswith("docs/runbook.md#")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


@needs_promtool
def test_promtool_takes_the_configuration():
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_alerts_fire_when_they_should():
    promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_promtool_takes_what_the_dashboard_asks(tmp_path):
    rules = [
        {"record": f"shown:{i}", "expr": plain(expression)} for i, expression in enumerate(SHOWN)
    ]
    file = tmp_path / "shown.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_panels_have_titles_units_and_places_of_their_own():
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
