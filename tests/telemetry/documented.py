"""The table of docs/metrics.md, from an answer: ``python tests/telemetry/documented.py``."""

from conftest import ROOT
from scrape import families

from loss_scoring.service.app import create_app
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics


def documented_rows():
    """Return the lines of the table."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    return [line for line in lines if line.startswith("| `loss_scoring_")]


def rows(text):
    """Return a line a metric: name as it is queried, type, labels, meaning."""
    lines = []
    for family in families(text).values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown = ", ".join(f"`{label}`" for label in sorted(labels))
        lines.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return sorted(lines)


if __name__ == "__main__":
    metrics = Metrics()
    create_app(Settings(), metrics=metrics)
    print("\n".join(rows(metrics.render().decode())))
