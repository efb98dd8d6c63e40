"""The metrics of one process: names by the rules, every metric documented."""

import re
import shutil
import subprocess

import httpx
import pytest
from documented import documented_rows, rows
from scrape import families, scrape, total

from loss_scoring.service.errors import InvalidError, OverloadedError, known_reasons
from loss_scoring.service.telemetry.metrics import Metrics, RequestOutcome
from loss_scoring.service.telemetry.multiprocess import BulkHistogram

BODY = {"losses": ["mae", "smape"], "series": [{"prediction": [1.0, 0.0], "target": [2.0, 0.0]}]}
PROMTOOL = shutil.which("promtool")


def test_names_follow_the_rules_of_prometheus(url):
    for name, family in families(scrape(url)).items():
        assert re.fullmatch(r"loss_scoring_[a-z_]+", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|millis\w*|kb|mib|minutes|ratio_percent)$", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        for sample in family.samples:
            assert sample.value >= 0
            if family.type == "counter":
                assert sample.name == f"{name}_total"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt: prometheus)")
def test_promtool_finds_nothing_to_mend(url):
    text = scrape(url)
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_every_metric_is_documented(url):
    """To mend it: ``python tests/telemetry/documented.py``."""
    httpx.post(f"{url}/score", json=BODY, timeout=60)
    assert documented_rows() == rows(scrape(url))


def test_a_scored_request_is_counted_by_loss(url):
    def counts():
        text = scrape(url)
        return [
            total(text, f"loss_scoring_{name}", **labels)
            for name, labels in (
                ("scored_series_total", {"loss": "mae"}),
                ("scored_elements_total", {"loss": "smape"}),
                ("scored_elements_total", {"loss": "mape"}),
                ("masked_elements_total", {"loss": "smape"}),
                ("request_seconds_count", {"format": "json"}),
                ("stage_seconds_count", {"stage": "compute"}),
            )
        ]

    before = counts()
    httpx.post(f"{url}/score", json=BODY, timeout=60).raise_for_status()
    assert [after - count for after, count in zip(counts(), before, strict=True)] == [
        1,
        2,
        0,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"{}", "application/json", "invalid"),
        (b"{", "application/json", "unreadable"),
        (b"", "text/plain", "unsupported-media-type"),
    ],
)
def test_a_refusal_is_counted_by_reason(url, body, kind, reason):
    before = total(scrape(url), "loss_scoring_refusals_total", reason=reason)
    httpx.post(f"{url}/score", content=body, headers={"Content-Type": kind}, timeout=60)
    assert total(scrape(url), "loss_scoring_refusals_total", reason=reason) == before + 1


def test_reasons_are_a_short_list():
    assert InvalidError("x").reason == "invalid"
    assert OverloadedError("x").reason == "overloaded"
    assert OverloadedError("x", reason="queue-full").reason in known_reasons()
    assert len(known_reasons()) < 30


def test_many_observations_at_once_are_those_of_the_library():
    from prometheus_client import CollectorRegistry, Histogram, generate_latest

    amounts = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 9.0]
    texts = []
    for kind in (Histogram, BulkHistogram):
        registry = CollectorRegistry()
        histogram = kind("x", "X.", ("a",), buckets=(1.0, 2.0), registry=registry).labels("b")
        if kind is Histogram:
            for amount in amounts:
                histogram.observe(amount)
        else:
            histogram.observe_all(amounts[:3])
            histogram.observe_all(amounts[3:])
        texts.append(generate_latest(registry))
    assert texts[0] == texts[1]


def test_what_is_put_aside_is_counted_before_a_scrape():
    metrics = Metrics()
    for _ in range(1000):
        metrics.observe(RequestOutcome("/score", "json", 200, 0.1))
    assert sum(len(deferred._observations) for deferred in metrics._deferred) < 256
    assert total(metrics.render().decode(), "loss_scoring_requests_total") == 1000


def test_a_total_kept_elsewhere_is_counted_once():
    metrics, exhausted = Metrics(), 0
    metrics.watch_device(lambda: {"free": 7}, lambda: exhausted)
    for exhausted in (2, 2, 5):  # noqa: B007 - read above
        text = metrics.render().decode()
    assert total(text, "loss_scoring_device_exhausted_total") == 5
    assert total(text, "loss_scoring_device_memory_bytes", state="free") == 7
