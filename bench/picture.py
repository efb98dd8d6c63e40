"""Draws what bench/peers.md says: how many times as many requests as each peer ours answers.

    .venv/bin/python bench/picture.py

The picture is docs/images/peers.svg; `make bench-peers` draws it after it has measured.
"""

import re
from pathlib import Path
from typing import Any

from loss_scoring.service.cli.charts import renderer

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers.md"
PICTURE = ROOT / "docs" / "images" / "peers.svg"
LOAD = re.compile(r"^ +(\S.*) \(.* of JSON\)$")
RATIO = re.compile(r"([\d.]+) \(([\d.]+)-([\d.]+)\)")
INK, BAR, WORSE, RANGE = "#1b2430", "#2457a6", "#c2560c", "#8fa3bf"


def ratios(text: str) -> list[dict[str, Any]]:
    """Return load, peer, and the ratio with its least and most, of every table in the page."""
    rows, load = [], ""
    for line in text.splitlines():
        if found := LOAD.match(line):
            load = found[1]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if len(cells) == 5 and not cells[0].startswith("ours") and (match := RATIO.match(cells[4])):
            ratio, least, most = map(float, match.groups())
            rows.append(
                {"load": load, "peer": cells[0], "ratio": ratio, "least": least, "most": most}
            )
    return rows


def chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the specification of Vega-Lite."""
    peers = {
        "field": "peer",
        "type": "nominal",
        "sort": list(dict.fromkeys(row["peer"] for row in rows)),
        "title": None,
        "axis": {"ticks": False, "domain": False, "labelPadding": 8},
    }
    scale = {"type": "log", "domain": [0.5, 64]}
    axis = {"values": [0.5, 1, 2, 4, 8, 16, 32, 64], "format": "~g", "domain": False}
    x = {
        "field": "ratio",
        "type": "quantitative",
        "title": None,
        "scale": scale,
        "axis": axis,
    }
    is_worse = {"condition": {"test": "datum.ratio < 1", "value": WORSE}, "value": BAR}
    layers = [
        {
            "mark": {"type": "bar", "height": 13},
            "encoding": {"x": x, "x2": {"datum": 1}, "color": is_worse},
        },
        {
            "mark": {"type": "rule", "color": RANGE, "strokeWidth": 2},
            "encoding": {"x": x | {"field": "least"}, "x2": {"field": "most"}},
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 6, "color": INK},
            "encoding": {
                "x": x | {"field": "most"},
                "text": {"field": "ratio", "type": "quantitative"},
            },
        },
    ]
    facet = {
        "field": "load",
        "sort": list(dict.fromkeys(row["load"] for row in rows)),
        "title": None,
        "header": {"labelAnchor": "start", "labelFontWeight": "bold", "labelFontSize": 12},
    }
    title = {
        "text": "Requests per second, as a multiple of what each service answers",
        "subtitle": "JSON, the same two cores; medians of 3 repeats, with their range",
        "anchor": "start",
        "offset": 16,
    }
    return {
        "title": title,
        "data": {"values": rows},
        "facet": facet,
        "columns": 2,
        "spec": {"width": 300, "height": {"step": 22}, "encoding": {"y": peers}, "layer": layers},
        "background": "white",
        "padding": 16,
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {"labelFontSize": 11, "labelColor": INK, "gridColor": "#dfe3e9"},
            "title": {"fontSize": 15, "subtitleFontSize": 12, "color": INK, "subtitleColor": INK},
        },
    }


def draw() -> None:
    """Write the picture."""
    PICTURE.write_text(f"{renderer()(chart(ratios(PEERS.read_text())))}\n")


if __name__ == "__main__":
    draw()
