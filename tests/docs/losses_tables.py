"""Writes the tables of losses into the pages: ``python tests/docs/losses_tables.py``."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from loss_scoring.core import LOSSES  # noqa: E402 - found beside this file, installed or not


def losses() -> str:
    """Return a row a loss."""
    return _table(
        ["loss", "of a series", "d loss / d p of an element", "after"],
        [
            [f"`{loss.name}`", f"{loss.title}: {loss.formula}", loss.gradient, f"`{loss.source}`"]
            for loss in LOSSES.values()
        ],
    )


def parameters() -> str:
    """Return a row a parameter."""
    return _table(
        ["parameter", "of", "default", "a value is"],
        [
            [f"`{name}`", f"`{loss.name}`", f"`{str(rule.default).lower()}`", rule.bounds]
            for loss in LOSSES.values()
            for name, rule in loss.parameters.items()
        ],
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", r"\|").replace("*", r"\*") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *escaped]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES = {"docs/semantics.md": losses(), "docs/protocol.md": parameters()}
"""By the page that has it."""


def found(page: str, table: str) -> str:
    """Return the table of a page that has the head of another one."""
    head = re.escape("".join(table.splitlines(keepends=True)[:2]))
    (text,) = re.findall(head + r"(?:\|.*\n)*", (ROOT / page).read_text())
    return str(text)


if __name__ == "__main__":
    for page, table in TABLES.items():
        text = (ROOT / page).read_text()
        (ROOT / page).write_text(text.replace(found(page, table), table))
