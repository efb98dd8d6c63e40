"""The page that ``loss-scoring report`` writes."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import ROOT

from loss_scoring.core.table import leaderboard, score_table
from loss_scoring.service.cli import charts

EXAMPLE = ROOT / "examples/data/forecasts.parquet"
MODELS = ("AutoETS", "CrostonSBA", "SeasonalNaive", "Theta")
HOSTILE = ("<script>alert(1)</script>", "</svg><img src=http://x.invalid/>", "a.b[0]'\"&amp;")
VOID = {"meta", "br", "img"}


class Parsed(HTMLParser):
    """A page whose tags must be balanced."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.headings, self._open = [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    pq.write_table(score_table(pq.read_table(EXAMPLE), missing="skip"), path)
    return path


def page(scores, *flags):
    output = scores.with_suffix(".html")
    status, out, err = cli("report", scores, "-o", output, *flags)
    assert (status, out) == (0, ""), err
    return output.read_text("utf-8")


def contained(text):
    """Parse a page that must refer to nothing elsewhere."""
    parsed = Parsed(text)
    assert not {"script", "img", "link", "iframe", "a", "image", "object"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert name not in {"href", "xlink:href", "src"}
        assert not name.startswith("on")
        shown = name == "aria-label"
        assert shown or name.startswith("xmlns") or "http" not in value, (name, value)
    assert "url(" not in text
    return parsed


def test_the_page_of_real_forecasts_is_whole(scores):
    flags = ("--loss", "smape", "--baseline", "SeasonalNaive", "--forecasts", EXAMPLE)
    parsed = contained(page(scores, *flags))
    assert parsed.headings == [
        "Leaderboard",
        "Distribution of smape",
        "smape by horizon",
        "Greatest smape of Theta",
        "Masked, missing and left out",
    ]
    assert parsed.tags.count("svg") == 2 + 1 + 1 + 6
    board = leaderboard(pq.read_table(scores), ["mae", "mape", "smape"], baseline="SeasonalNaive")
    for cell in (*MODELS, *board.notes, *(cell for row in board.shown()[1] for cell in row)):
        assert cell in parsed.text


def test_without_forecasts_it_shows_what_scores_say(scores):
    parsed = contained(page(scores))
    assert parsed.headings == [
        "Leaderboard",
        "Distribution of mae",
        "Masked, missing and left out",
    ]
    assert parsed.tags.count("svg") == 2


def test_the_page_of_csv_files_is_that_of_parquet(scores, tmp_path):
    forecasts, losses = tmp_path / "forecasts.csv", tmp_path / "scores.csv"
    pa.csv.write_csv(pq.read_table(EXAMPLE), forecasts)
    assert cli("score", forecasts, "--missing", "skip", "-o", losses)[0] == 0
    flags = ("--loss", "smape", "--forecasts", forecasts)
    of_csv, of_parquet = Parsed(page(losses, *flags)), Parsed(page(scores, *flags))
    assert of_csv.tags == of_parquet.tags
    assert of_csv.tags.count("svg") == 1 + 1 + 1 + 6
    mixed = Parsed(page(losses, "--loss", "smape", "--forecasts", EXAMPLE))
    assert mixed.tags == of_parquet.tags


def test_forecasts_with_a_row_a_series_are_drawn_but_have_no_horizon(scores, tmp_path):
    frame = pq.read_table(EXAMPLE).to_pandas().drop(columns="ds")
    nested = frame.groupby(["unique_id", "cutoff"], sort=False).agg(list).reset_index()
    forecasts = tmp_path / "nested.parquet"
    pq.write_table(pa.Table.from_pandas(nested), forecasts)
    parsed = contained(page(scores, "--loss", "smape", "--forecasts", forecasts))
    assert parsed.tags.count("svg") == 1 + 1 + 6
    assert "not drawn by horizon" in parsed.text


def test_actual_values_may_be_apart(scores, tmp_path):
    table = pq.read_table(EXAMPLE)
    keys = ["unique_id", "cutoff", "ds"]
    forecasts, actuals = tmp_path / "forecasts.parquet", tmp_path / "actuals.parquet"
    pq.write_table(table.drop_columns("y"), forecasts)
    pq.write_table(table.select([*keys, "y"]), actuals)
    apart = ("--forecasts", forecasts, "--actuals", actuals, "--on", ",".join(keys))
    assert page(scores, *apart) == page(scores, "--forecasts", EXAMPLE)


def test_series_and_models_that_forecasts_lack_are_counted(scores, tmp_path):
    table = pq.read_table(EXAMPLE).drop_columns("AutoETS")
    forecasts = tmp_path / "forecasts.parquet"
    pq.write_table(table.slice(0, 28), forecasts)
    parsed = contained(page(scores, "--loss", "smape", "--forecasts", forecasts))
    assert "1 of 4 models are not drawn by horizon and series" in parsed.text
    assert "6 of 6 worst series are not in" in parsed.text


def test_scaled_losses_have_no_horizon(tmp_path):
    forecasts, scores = tmp_path / "forecasts.parquet", tmp_path / "scores.parquet"
    columns = {"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "A": [2.0, 2.0]}
    table = pa.table(columns | {"scale": [2.0, 2.0]})
    pq.write_table(table, forecasts)
    made = score_table(
        table, group_by=["unique_id"], losses=["mase"], scale_col="scale", predictions=["A"]
    )
    pq.write_table(made, scores)
    parsed = contained(page(scores, "--forecasts", forecasts))
    assert "not drawn by horizon: mase is of whole series" in parsed.text
    assert parsed.tags.count("svg") == 1 + 1 + 1


def test_names_are_text_and_nothing_else(tmp_path):
    table = pa.table({"unique_id": [*HOSTILE, *HOSTILE], "ds": [1] * 3 + [2] * 3, "y": [1.0] * 6})
    for shift, name in enumerate(HOSTILE):
        table = table.append_column(name, pa.array(np.arange(6.0) + shift))
    forecasts, scores = tmp_path / "forecasts.parquet", tmp_path / "scores.parquet"
    pq.write_table(table, forecasts)
    pq.write_table(score_table(table, group_by=["unique_id"]), scores)
    text = page(scores, "--forecasts", forecasts, "--sort")
    parsed = contained(text)
    assert parsed.tags.count("svg") == 1 + 1 + 1 + 3
    for name in HOSTILE:
        assert parsed.text.count(name) > 3
        assert f"unique_id={name!r}"[:40] in parsed.text


def drawn(monkeypatch, scores, *flags):
    """Return the specifications that a page is drawn from, in the order of drawing."""
    specs = []

    def draw(spec):
        specs.append(spec)
        return "<svg></svg>"

    monkeypatch.setattr(charts, "renderer", lambda: draw)
    page(scores, *flags)
    return specs


def test_the_horizon_is_of_elements_that_all_models_have(monkeypatch, scores):
    frame = pq.read_table(EXAMPLE).to_pandas()
    frame["step"] = frame.groupby(["unique_id", "cutoff"])["ds"].rank().astype(int)
    common = frame[frame[["y", *MODELS]].notna().all(axis=1)]
    specs = drawn(monkeypatch, scores, "--loss", "mae", "--forecasts", EXAMPLE)
    rows = specs[2]["data"]["values"]
    assert {row["model"] for row in rows} == {*MODELS}
    assert len(rows) == len(MODELS) * common["step"].nunique()
    for row in rows:
        own = common[common["step"] == row["step"]]
        assert row["value"] == pytest.approx((own["y"] - own[row["model"]]).abs().mean(), 1e-12)


def test_the_worst_series_are_drawn_as_they_are(monkeypatch, scores):
    frame = pq.read_table(EXAMPLE).to_pandas()
    table = pq.read_table(scores).to_pandas()
    worst = table[table["model"] == "Theta"].nlargest(6, "smape")
    specs = drawn(monkeypatch, scores, "--loss", "smape", "--forecasts", EXAMPLE)[3:]
    assert len(specs) == 6
    for spec, (_, key) in zip(specs, worst.iterrows(), strict=True):
        assert repr(key["unique_id"]) in spec["title"]["text"][0]
        own = frame[(frame["unique_id"] == key["unique_id"]) & (frame["cutoff"] == key["cutoff"])]
        own = own.sort_values("ds")
        actual, predictions = (layer["data"]["values"] for layer in spec["layer"])
        assert [row["value"] for row in actual] == own["y"].tolist()
        theta = [row["value"] for row in predictions if row["model"] == "Theta"]
        assert theta == own["Theta"].astype(float).tolist()
        assert [row["step"] for row in actual] == list(range(1, len(own) + 1))


def test_boxes_are_quantiles_of_the_compared_series(monkeypatch, scores):
    table = pq.read_table(scores).to_pandas().pivot_table("smape", ["unique_id", "cutoff"], "model")
    common = table.dropna()
    rows = drawn(monkeypatch, scores, "--loss", "smape")[1]["data"]["values"]
    for row in rows:
        want = np.quantile(common[row["model"]], [0.05, 0.5, 0.95], method="inverted_cdf")
        assert [row["p5"], row["p50"], row["p95"]] == want.tolist()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--loss", "rmse"), "--loss: 'rmse' is none of the losses mae, mape, smape"),
        (("--baseline", "Thetta"), "did you mean 'Theta'?"),
        (("--forecasts", "absent.parquet"), "absent.parquet"),
        (("--on", "ds"), "--on belongs to --forecasts"),
        (("--zero-division", "skip"), "--zero-division belongs to --forecasts"),
        (("-o", "absent/page.html"), "there is no folder absent"),
    ],
)
def test_what_cannot_be_drawn_is_said(scores, flags, words):
    status, out, err = cli("report", scores, *flags)
    assert status in (1, 2)
    assert not out
    assert words in err
    assert err.startswith("error: ")


def test_what_is_read_is_not_written_over(scores):
    before = scores.read_bytes()
    for flags in ((scores,), (EXAMPLE, "--forecasts", scores)):
        status, _, err = cli("report", *flags, "-o", scores)
        assert (status, scores.read_bytes()) == (2, before)
        assert "is a file to read; name another output" in err


def test_scores_without_losses_are_called_that(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("unique_id,model,length\na,A,3\n")
    status, _, err = cli("report", path, "-o", tmp_path / "report.html")
    assert (status, err) == (1, f"error: {path}: no column right of 'model' holds losses\n")


@pytest.mark.parametrize("weight", [None, "w"])
def test_names_with_commas_are_drawn_and_weights_are_not(tmp_path, weight):
    forecasts, scores = tmp_path / "forecasts.parquet", tmp_path / "scores.parquet"
    columns = {"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "w": [1.0, 2.0]}
    models = {"ARIMA(1,1,1)": [2.0, 2.0], "ETS(A,N,N)": [1.0, 2.25]}
    table = pa.table(columns | models)
    pq.write_table(table, forecasts)
    made = score_table(
        table, group_by=["unique_id"], losses=["mae"], models=[*models], weight_col=weight
    )
    pq.write_table(made, scores)
    parsed = contained(page(scores, "--forecasts", forecasts))
    assert parsed.headings[2:4] == ["mae by horizon", "Greatest mae of ETS(A,N,N)"]
    assert ("all elements weigh the same" in parsed.text) == (weight is not None)


def test_forecasts_are_no_scores():
    status, _, err = cli("report", EXAMPLE)
    assert status == 1
    assert "no column 'model'" in err


def test_a_missing_library_is_named(monkeypatch, scores):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    status, _, err = cli("report", scores)
    assert status == 2
    assert "pip install 'loss-scoring[report]'" in err


def test_numbers_that_json_lacks_are_not_drawn(tmp_path):
    scores = tmp_path / "scores.parquet"
    losses = pa.array([1.0, float("inf"), None, float("nan"), 2.0, 0.0])
    columns = {"unique_id": ["a", "a", "b", "b", "c", "c"], "model": ["A", "B"] * 3, "mae": losses}
    pq.write_table(pa.table(columns), scores)
    parsed = contained(page(scores))
    assert re.search(r"mae: 2 of 3 series are compared", parsed.text)
