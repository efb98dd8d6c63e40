"""Operations, runbook and limits name what is in the code: settings, probes, alerts, tests."""

import re

import pytest
from conftest import ROOT
from pages import DOCS, PAGES, anchors, links, rows
from settings_table import TABLE, table

from loss_scoring.service.errors import known_reasons
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import PROBES

OPERATIONS, RUNBOOK, LIMITS, WHY = (
    DOCS / f"{name}.md" for name in ("operations", "runbook", "limits", "why")
)
MEBI = 1 << 20


def test_the_table_of_settings_is_that_of_the_code():
    (found,) = TABLE.findall(OPERATIONS.read_text())
    assert found == table(), "run python tests/docs/settings_table.py"


def test_settings_that_pages_name_exist():
    names = {*Settings.model_fields}
    words = re.findall(r"`(\w+_(?:s|ms|bytes|elements|file|probes|per_s))`", OPERATIONS.read_text())
    words += [row[1].strip("`") for row in rows(LIMITS, "Limits of a request")]
    assert {word for word in words if word} <= names


SHOWN = {
    "max_body_bytes": lambda n: f"{n // MEBI} MiB",
    "max_json_bytes": lambda n: f"{n // MEBI} MiB",
    "max_elements": lambda n: f"{n // MEBI} Mi",
    "max_open_bytes": lambda n: f"four fifths of {n // MEBI} MiB",
    "max_header_bytes": lambda n: f"{n >> 10} KiB",
    "header_timeout_s": lambda n: f"{n:g} s",
    "body_timeout_s": lambda n: f"{n:g} s, and 1 s for each 64 KiB",
    "default_timeout_ms": lambda n: f"{n // 1000} s",
    "max_timeout_ms": lambda n: f"{n // 1000} s",
    "write_timeout_s": lambda n: f"{n:g} s",
}


def test_limits_have_the_defaults_of_the_code():
    from loss_scoring.service.codecs.request import MAX_ID_BYTES
    from loss_scoring.service.limits.fairness import ALONE

    shown = {row[1].strip("`"): row[2] for row in rows(LIMITS, "Limits of a request")}
    assert shown.pop("") == f"{MAX_ID_BYTES} bytes"
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert shown == {name: spell(defaults[name]) for name, spell in SHOWN.items()}
    assert ALONE == 4 / 5
    assert defaults["min_body_bytes_per_s"] == 64 << 10


def test_every_scenario_of_make_chaos_is_in_limits():
    kept = set(re.findall(r'Scenario\("([^"]+)"', (ROOT / "tests/chaos/run.py").read_text()))
    named = re.findall(r"\[((?:chaos|fuzz)/\w+)\]\(", LIMITS.read_text())
    assert sorted(named) == sorted(kept)
    for name in named:
        assert f"[{name}](../tests/{name}.py)" in LIMITS.read_text()


def test_probes_are_named(client):
    assert {row[0].strip("`") for row in rows(OPERATIONS, "Probes")} == PROBES
    assert all(client.get(path).status_code == 200 for path in PROBES)


def runbook():
    """Return the sections of the runbook, with their text."""
    text = RUNBOOK.read_text()
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


ALERTS = [path for path in (ROOT / "deploy").rglob("*.y*ml") if "docs/runbook.md" in path.read_text()]  # fmt: skip


@pytest.mark.parametrize("rules", ALERTS, ids=lambda path: path.name)
def test_every_alert_has_a_section_and_every_section_an_alert(rules):
    text = rules.read_text()
    linked = re.findall(r"docs/runbook\.md#([\w-]+)", text)
    assert set(linked) <= anchors(RUNBOOK)
    assert set(linked) == {heading.lower().replace(" ", "-") for heading in runbook()}
    for alert, anchor in re.findall(r"- alert: (\w+)\n.*?runbook\.md#([\w-]+)", text, re.DOTALL):
        (section,) = [
            body
            for heading, body in runbook().items()
            if heading.lower().replace(" ", "-") == anchor
        ]
        assert f"`{alert}`" in section, alert


def test_sections_of_the_runbook_name_an_alert_and_say_what_to_do():
    assert len(runbook()) >= 9
    for heading, body in runbook().items():
        assert re.match(r"\n`LossScoring\w+`", body), heading
        assert "\n1. " in body, heading


def test_log_lines_that_are_quoted_are_written_by_the_code():
    folders = [ROOT / "core", ROOT / "service"]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    sources = "".join(path.read_text() for path in files)
    pages = OPERATIONS.read_text() + RUNBOOK.read_text()
    for line in (
        "the device worker died",
        "does not answer",
        "refused with",
        "slices failed",
        "torch sees",
        "giving up",
    ):
        assert line in pages
        assert line in sources
    assert "unexpected error in request" in RUNBOOK.read_text()
    assert "unexpected error in request" in sources


def test_exit_codes_are_those_of_the_code():
    from loss_scoring.service.processes.supervisor import LOST
    from loss_scoring.service.server.run import _CUT_OFF, _FAILED

    page = OPERATIONS.read_text() + RUNBOOK.read_text()
    assert f"exit code {LOST}, `giving up`" in page
    assert f"ends with status {LOST}," in page
    assert f"exit code {_FAILED} |" in page
    assert f"exit code 137 or {_CUT_OFF} after a termination" in page


def test_metrics_that_pages_name_are_described():
    described = {row[0].strip("`") for row in rows(DOCS / "metrics.md", "Metrics")}
    for page in PAGES:
        for name in re.findall(r"`(loss_scoring_\w+)`", page.read_text()):
            assert name in described, f"{page}: {name}"


def test_reasons_that_the_runbook_names_are_those_of_the_code():
    section = runbook()["Requests are refused"]
    assert set(re.findall(r"`([a-z]+-[a-z]+)`", section)) <= set(known_reasons())


def test_figures_of_size_stand_in_the_measurements():
    (_, size) = OPERATIONS.read_text().split("\n## Size\n")
    measured = (ROOT / "bench/results.md").read_text()
    table = re.findall(r"│ ([\w +]+?) *│ (\d+) +│ (\d+) +│ \d+ +│ ([\d.]+) +│\n", measured)
    times = {name: float(ratio) for name, *_, ratio in table}
    assert f"some {table[0][2]} MB" in size
    assert f"a {table[0][1]} MB body took {times['Arrow']:.1f} times its size" in size
    assert f"gradients {times['Arrow + gradients']:.1f}\n  times" in size


def test_figures_of_front_ends_stand_in_the_measurements():
    """To one digit: elements a second are those of one row each, which is neither best nor worst."""
    (_, section) = OPERATIONS.read_text().split("\n## Front ends\n")
    measured = (ROOT / "bench/results.md").read_text()
    (ms,) = re.findall(r"│ 1k x 480 │ 3 decimals +│(?: [\d.]+ +│){3} ([\d.]+) ", measured)
    (arrow,) = re.findall(r"│ 1000 +│ 1000 +│ 1 +│ \d+ +│ ([\d.]+) ", measured)
    figures = (480 / float(ms), float(arrow))
    json, arrow = (int(float(f"{million:.1g}")) for million in figures)
    assert f"some {json} million elements a second of JSON" in section
    assert f"scores some {arrow}\nmillion of Arrow" in section


def test_figures_of_why_stand_in_the_measurements():
    """Every number of a row stands in the file that the row names."""
    for what, figure, source in rows(WHY, "How fast"):
        (path,) = re.findall(r"\]\(\.\./(bench/\w+\.md)", source)
        measured = (ROOT / path).read_text()
        for number in re.findall(r"\d+(?:\.\d+)?", f"{what} {figure}"):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", measured), (what, number)
    assert links(WHY)
