"""Writes the table of settings into docs/operations.md: ``python tests/docs/settings_table.py``."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from loss_scoring.service.settings import Settings  # noqa: E402 - found beside this file, installed or not

PAGE = ROOT / "docs/operations.md"
HEAD = "| setting | default | meaning |\n| --- | --- | --- |\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)+")


def table() -> str:
    """Return the table, a row a setting in the order of the code."""
    rows = [
        f"| `{name}` | {_shown(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return HEAD + "".join(rows)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= 1 << 20 and default % (1 << 20) == 0:
        return f"`{default}` ({default >> 20} Mi)"
    return f"`{default}`"


if __name__ == "__main__":
    text = PAGE.read_text()
    assert len(TABLE.findall(text)) == 1
    PAGE.write_text(TABLE.sub(lambda _: table(), text))
