"""Charts of losses as specifications of Vega-Lite, drawn into SVG by vl-convert-python.

Names of models and series are only ever values of data, never names of fields or expressions, so
no name can mean anything to Vega.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loss_scoring.service.errors import UsageError

Rows = Sequence[Mapping[str, Any]]
Spec = dict[str, Any]

MOST_MODELS = 6
"""As many are drawn in one chart of lines."""
_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
"""Of Okabe and Ito, which the colour-blind can tell apart."""
_DASHES = [[], [6, 2], [2, 2], [8, 3, 2, 3], [4, 4], [1, 2]]
_BLACK = "#222"
_ROW = 26
"""Pixels a model, where models are below each other."""


def renderer() -> Callable[[Spec], str]:
    """Return what draws a chart into SVG.

    Raises:
        UsageError: If the library that draws is not installed.
    """
    try:
        from vl_convert import vegalite_to_svg
    except ModuleNotFoundError as error:
        raise UsageError(
            "a report is drawn by vl-convert-python, which is not installed: "
            "pip install 'loss-scoring[report]'"
        ) from error
    return lambda spec: vegalite_to_svg(spec, vl_version="6.4")


def intervals(rows: Rows, models: Sequence[str], title: str) -> Spec:
    """Draw the interval and the point of each model: ``model``, ``value``, ``lower``, ``upper``."""
    bar = {"x": _number("lower", title), "x2": {"field": "upper"}}
    point = {"x": _number("value", title)}
    return _by_model(rows, models, ("rule", 2, bar), ("point", 1, point))


def boxes(rows: Rows, models: Sequence[str], title: str) -> Spec:
    """Draw quantiles of the losses of each model: ``model``, ``p5``, ``p25`` and so on."""
    whisker = {"x": _number("p5", title), "x2": {"field": "p95"}}
    box = {"x": _number("p25", title), "x2": {"field": "p75"}}
    return _by_model(
        rows,
        models,
        ("rule", 1, whisker),
        ("rule", 12, box),
        ("tick", 2, {"x": _number("p50", title)}),
    )


def by_step(rows: Rows, models: Sequence[str], loss: str) -> Spec:
    """Draw ``value`` over ``step``, a line for each ``model``."""
    return _chart(rows, 640, 280) | {
        "mark": {"type": "line", "point": {"size": 30}},
        "encoding": _lines(models) | {"y": _number("value", loss)},
    }


def series(actual: Rows, predictions: Rows, models: Sequence[str], title: list[str]) -> Spec:
    """Draw ``value`` over ``step``: the actual values in black, and a line for each ``model``."""
    value = {"y": _number("value", "")}
    black = {"type": "line", "color": _BLACK, "strokeWidth": 2.5, "point": {"color": _BLACK}}
    layers = [
        {"data": {"values": actual}, "mark": black, "encoding": value | {"x": _steps()}},
        {"data": {"values": predictions}, "mark": "line", "encoding": value | _lines(models)},
    ]
    heading = {"text": title, "anchor": "start", "limit": 420, "fontSize": 12}
    return _chart([], 400, 200) | {"title": heading, "layer": layers}


def _chart(rows: Rows, width: int, height: int | Spec) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": None,
        "data": {"values": list(rows)},
        "width": width,
        "height": height,
    }


def _by_model(rows: Rows, models: Sequence[str], *layers: tuple[str, int, Spec]) -> Spec:
    y = {"field": "model", "type": "nominal", "scale": {"domain": list(models)}, "title": None}
    marks = [
        {
            "mark": {"type": mark, "strokeWidth": size, "color": _COLORS[0]}
            | ({"filled": True, "size": 70} if mark == "point" else {})
            | ({"color": _BLACK, "thickness": 3, "size": 16} if mark == "tick" else {})
            | ({"opacity": 0.6} if size == 12 else {}),
            "encoding": encoding | {"y": y},
        }
        for mark, size, encoding in layers
    ]
    return _chart(rows, 560, {"step": _ROW}) | {"layer": marks}


def _lines(models: Sequence[str]) -> Spec:
    names = list(models)
    legend = {"title": None, "labelLimit": 200, "orient": "bottom", "columns": 4}
    known = {"field": "model", "type": "nominal", "legend": legend}
    color = {"scale": {"domain": names, "range": _COLORS[: len(names)]}}
    dash = {"scale": {"domain": names, "range": _DASHES[: len(names)]}}
    return {"x": _steps(), "color": known | color, "strokeDash": known | dash}


def _steps() -> Spec:
    axis = {"tickMinStep": 1, "format": "d"}
    return _number("step", "step") | {"axis": axis}


def _number(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}
