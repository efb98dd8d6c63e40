"""The page at / from the first click to the copied command; `make test-page` brings the browser."""

import csv
import io
import json
import math
import subprocess

import pyarrow as pa
import pyarrow.csv
import pytest
from conftest import ROOT
from instance import instance

from loss_scoring.core.table import leaderboard, score_table

pytest.importorskip("playwright", reason="make test-page installs it in an environment of its own")
pytestmark = pytest.mark.page
pytest_plugins = ["browser"]
KEY = "0123456789abcdef"
EXAMPLE = ROOT / "service/api/page/example.csv"
HOSTILE = "<img src=x onerror=alert(1)>"
LOSSES = ("mae", "mape", "smape")


@pytest.fixture(scope="module")
def example():
    types = {"unique_id": "string", "cutoff": "string", "ds": "string"}
    convert = pa.csv.ConvertOptions(column_types=types)
    return pa.csv.read_csv(EXAMPLE, convert_options=convert)


@pytest.fixture(scope="module")
def scores(example):
    return score_table(example, missing="skip", gradients=True)


def opened(open_page, url, **options):
    page = open_page(url, **options)
    page.wait_for_selector("#losses .choice")
    return page


def paste(page, text):
    page.fill("#text", text)
    page.wait_for_selector("#columns select")


def score(page):
    page.click("#score")
    page.wait_for_selector("#chart svg[role=img]")


def texts(page, selector):
    return page.locator(selector).all_inner_texts()


def digits(number):
    """Return a number as the page writes losses: five digits."""
    whole = (
        len(str(int(abs(number)))) if abs(number) >= 1 else -math.floor(math.log10(abs(number))) - 1
    )
    places = 5 - whole if abs(number) >= 1 else 5 + whole
    return f"{number:,.{places}f}"


def test_the_example_from_the_first_click(open_page, check_accessible, url, scores, way):
    page = opened(open_page, url, **way)
    check_accessible(page)
    assert page.is_disabled("#score")
    page.click("#example")
    page.wait_for_selector("#columns select")
    assert page.inner_text("#data-summary") == "example.csv: 552 rows, 7 columns"
    score(page)
    check_accessible(page)

    for loss in LOSSES:
        page.check(f"#ranked-by [value={loss}]")
        board = leaderboard(scores, list(LOSSES), n_resamples=0).to_arrow().to_pylist()
        means = {(row["loss"], row["model"]): row["mean"] for row in board}
        want = [
            [
                row["model"],
                f"{100 * row['win_rate']:.0f} %",
                *(digits(means[x, row["model"]]) for x in LOSSES),
            ]
            for row in board
            if row["loss"] == loss
        ]
        got = [row.split("\t") for row in texts(page, "#board tbody tr")]
        assert [[cell.strip() for cell in row] for row in got] == want
    notes = page.inner_text("#notes")
    assert "over 46 of 48 series" in notes
    assert "AutoETS has none for 2" in notes
    assert "5 of y, 52 of AutoETS" in notes


def test_series_are_paged_sorted_and_drawn(open_page, url, scores):
    page = opened(open_page, url)
    page.click("#example")
    score(page)
    rows = scores.filter(pa.compute.equal(scores["model"], "Theta")).to_pylist()
    assert page.inner_text("#range") == "1 to 12 of 48"
    page.click("#next")
    assert page.inner_text("#range") == "13 to 24 of 48"
    assert texts(page, "#series tbody tr")[0].split("\t")[0] == rows[12]["unique_id"]

    page.click("#series thead button:text('Theta')")
    assert page.get_attribute("#series th[aria-sort]", "aria-sort") == "descending"
    want = sorted((row["mae"] for row in rows), reverse=True)[:12]
    assert [row.split("\t")[-1] for row in texts(page, "#series tbody tr")] == [*map(digits, want)]
    page.click("#series thead button:text('Theta')")
    assert page.get_attribute("#series th[aria-sort]", "aria-sort") == "ascending"

    page.click("#series tbody tr:nth-child(3) button")
    chosen = sorted(rows, key=lambda row: row["mae"])[2]
    page.wait_for_selector(f"figcaption:has-text('{chosen['unique_id']} · {chosen['cutoff']}')")
    page.click("figure summary")
    cells = [row.split("\t") for row in texts(page, "figure tbody tr")]
    assert len(cells) == chosen["length"]
    assert [float(row[-1].replace(",", "")) for row in cells] == pytest.approx(
        chosen["mae_gradient"], rel=1e-5
    )
    assert page.locator("#chart path.model").count() == 2 * 3  # the legend has them as well


def test_everything_by_keyboard(open_page, url):
    page = opened(open_page, url)

    def tab_to(selector):
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#file")
    tab_to("#example")
    page.keyboard.press("Enter")
    page.wait_for_selector("#columns select")
    tab_to("[data-column='6']")
    page.keyboard.press("End")
    assert page.input_value("[data-column='6']") == "none"
    tab_to("#losses [value=mape]")
    page.keyboard.press("Space")
    tab_to("#score")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chart svg[role=img]")
    assert page.evaluate("document.activeElement.id") == "board-heading"
    tab_to("#ranked-by [value=mae]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("figure text:text('gradient of smape')")
    tab_to("#series thead button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#series th[aria-sort]", "aria-sort") == "ascending"
    tab_to("#series tbody tr:nth-child(2) button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#series tbody tr:nth-child(2) button", "aria-pressed") == "true"
    tab_to("#next")
    page.keyboard.press("Enter")
    tab_to("[data-copies=curl]")
    assert len(texts(page, "#series thead th")) == 5  # without Theta


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_names_from_the_data_are_text(open_page, url, mark):
    rows = [
        ["unique_id", "y", HOSTILE, "q-0.9", "note"],
        [f'a "{HOSTILE}"', 1, 2, 9, "x"],
        ["b", 1, 4, 9, "y"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=mark, lineterminator="\r\n").writerows(rows)
    page = opened(open_page, url)
    paste(page, text.getvalue())
    score(page)
    assert page.locator("img").count() == 0
    assert texts(page, "#board tbody th") == [HOSTILE]
    assert texts(page, "#series tbody th") == [f'a "{HOSTILE}"', "b"]
    notes = page.inner_text("#notes")
    assert "Column q-0.9 is left out: a quantile." in notes
    assert "Column note is left out: text." in notes


BODY = {
    "series": [
        {"id": 7, "prediction": [1, 2], "target": [1, 4]},
        {"id": 7, "prediction": [3], "target": [3]},
    ]
}
ROWS = [{"id": "a", "y": 1, "A": 2}, {"id": "a", "y": 4, "A": 4}, {"id": "b", "y": 1, "A": 1}]
COLUMNS = {"id": ["a", "a", "b"], "y": [1, 4, 1], "A": [2, 4, 1]}


@pytest.mark.parametrize(
    ("document", "losses"),
    [
        (BODY, [["7", "2", "1.0000"], ["7", "1", "0"]]),
        *((x, [["2", "0.50000"], ["1", "0"]]) for x in (ROWS, COLUMNS)),
    ],
    ids=["body", "rows", "columns"],
)
def test_json_is_read_in_three_forms(open_page, url, tmp_path, document, losses):
    file = tmp_path / "forecasts.json"
    file.write_text(json.dumps(document))
    page = opened(open_page, url)
    page.set_input_files("#file", file)
    score(page)
    assert [row.split("\t")[1:] for row in texts(page, "#series tbody tr")] == losses


def test_a_file_can_be_dropped(open_page, url):
    page = opened(open_page, url)
    page.evaluate("""() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["unique_id,y,A\\na,1,2\\n"], "dropped.csv"));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
    }""")
    page.wait_for_selector("#data-summary:text('dropped.csv: 1 row, 3 columns')")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f.parquet", b"PAR1....PAR1", "f.parquet is Parquet, which a browser cannot read. Score it from a shell, lossclient score f.parquet --url"),
        ("f.arrow", b"ARROW1\0\0", "f.arrow is Arrow, which"),
        ("f.csv", "y,ü".encode("utf-16"), "f.csv is not in UTF-8."),
        ("f.csv", b"unique_id,y\na,1,2\n", "Row 0 has 3 cells, the header 2."),
        ("f.csv", b'unique_id,y\n"a,1\n', "Row 0 has a quotation mark that is not closed."),
        ("f.json", b"[{]", "This is not JSON"),
        ("f.json", b'{"a": [1], "b": 2}', "Column b must be a list as long as the others."),
        ("f.json", b'{"series": [{"prediction": [1]}]}', "Series 0 needs a prediction and a target of one length."),
        ("f.json", b'{"series": [null]}', "Series 0 needs a prediction and a target of one length."),
        ("f.json", b"null", "There are no rows."),
        ("f.csv", b"unique_id,y,A\n", "There are no rows."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(open_page, url, tmp_path, name, content, says):
    file = tmp_path / name
    file.write_bytes(content)
    page = opened(open_page, url)
    page.set_input_files("#file", file)
    page.wait_for_selector("#data-error:not(:empty)")
    assert says in page.inner_text("#data-error")
    assert page.is_disabled("#score")


def test_what_the_service_refuses_is_shown(open_page, url, check_accessible):
    page = opened(open_page, url, refusals=[422])
    paste(page, "unique_id,ds,y,A\na,1,1,2\na,1,1,\n")
    page.click("#score")
    page.wait_for_selector("#problem:not(:empty)")
    assert "rows 0 and 1" in page.inner_text("#problem")
    assert page.evaluate("document.activeElement.id") == "score"
    check_accessible(page)
    page.select_option("#duplicates", "allow")
    page.click("#score")
    page.wait_for_selector("#problem:has-text('missing=skip')")
    page.select_option("#missing", "skip")
    score(page)
    assert page.inner_text("#problem") == ""
    page.select_option("[data-column='0']", "none")
    page.click("#score")
    page.wait_for_selector("#problem:has-text('Say which column is a series key.')")


def test_different_missing_elements_are_said(open_page, url):
    page = opened(open_page, url)
    paste(page, "unique_id,y,A,B\na,1,2,\na,1,2,3\nb,1,,\nb,1,1,2\n")
    page.select_option("#missing", "skip")
    score(page)
    assert "In 1 compared series some models lack elements that others have" in page.inner_text(
        "#notes"
    )


def test_what_is_copied_gives_the_same(open_page, url, tmp_path, monkeypatch, capsys):
    page = opened(open_page, url)
    page.click("#example")
    page.check("#losses [value=huber]")
    page.fill("[data-parameter=delta]", "1.5")
    score(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copied = {}
    for program in ("curl", "python"):
        page.click(f"[data-copies={program}]")
        page.wait_for_selector(f"#copied:text('Copied {program}')", state="attached")
        copied[program] = page.evaluate("navigator.clipboard.readText()")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "request.arrows")

    curl = subprocess.run(copied["curl"], shell=True, cwd=tmp_path, capture_output=True, check=True)  # noqa: S602
    answer = json.loads(curl.stdout)
    assert list(answer["losses"]) == ["mae", "mape", "smape", "huber"]
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(copied["python"], "copied", "exec"), scope)  # noqa: S102 - our own page
    assert "46 of 48 series are compared" in capsys.readouterr().out
    scores = scope["scores"]
    for loss, values in answer["losses"].items():
        assert scores[loss].to_pylist() == values


def test_more_than_two_keys_in_python(open_page, url, tmp_path, monkeypatch, capsys):
    page = opened(open_page, url)
    paste(page, "unique_id,cutoff,region,y,A\na,1,x,1,2\na,1,y,1,4\n")
    page.select_option("[data-column='2']", "key")
    score(page)
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "request.arrows")
    monkeypatch.chdir(tmp_path)
    code = page.inner_text("#python")
    with pytest.warns(match="region"):
        exec(compile(code, "copied", "exec"), {})  # noqa: S102 - our own page
    assert "mae" in capsys.readouterr().out


def test_a_key_is_asked_for_and_kept_in_memory_only(open_page, check_accessible):
    with instance(api_keys=KEY, device="cpu") as running:
        page = open_page(running.url, refusals=[401])
        for key in ("wrong-0123456789abcdef", KEY):
            page.wait_for_selector("#key:visible")
            assert page.evaluate("document.activeElement.id") == "key"
            check_accessible(page)
            page.fill("#key", key)
            page.keyboard.press("Enter")
        page.wait_for_selector("#losses .choice")
        assert page.inner_text("#problem") == ""
        page.click("#example")
        score(page)
        assert "$LOSSCLIENT_API_KEY" in page.inner_text("#curl")
        assert KEY not in page.content()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
            0,
            0,
            "",
        ]
        page.reload()
        page.wait_for_selector("#key:visible")


CELLS = {
    "text": ["a", None, "", "ä" * 300, '"\n'],
    "y": [1.5, -0.0, float("nan"), 1e308, 3.0],
    "b" * 9: ["x", "y", "z", None, None],
}


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_arrow_streams_are_those_of_arrow(open_page, url, rows):
    page = opened(open_page, url)
    given = {name: cells[:rows] for name, cells in CELLS.items()}
    sent = {k: [str(x) if isinstance(x, float) else x for x in v] for k, v in given.items()}
    stream = page.evaluate(
        """async (given) => {
            const {arrowStream} = await import("./page/arrow.js");
            const columns = Object.entries(given).map(([name, cells]) => ({
                name, cells: name === "y" ? Float64Array.from(cells, Number) : cells,
            }));
            return [...new Uint8Array(await new Blob(arrowStream(columns)).arrayBuffer())];
        }""",
        sent,
    )
    table = pa.ipc.open_stream(bytes(stream)).read_all()
    table.validate(full=True)
    types = {"text": pa.string(), "y": pa.float64(), "b" * 9: pa.string()}
    want = pa.table({name: pa.array(cells, types[name]) for name, cells in given.items()})
    assert table.schema.equals(want.schema)
    assert str(table.to_pydict()) == str(want.to_pydict())


def test_leaderboards_are_those_of_core(open_page, url):
    page = opened(open_page, url)
    values = [
        [1.0, -2.0, 3.0, None],
        [2.0, 2.0, None, None],
        [0.5, -0.25, 0.25, None],
        [4.0, 1.0, 1.0, None],
    ]
    models = ["B", "A", "C", "none"]
    answer = {"models": models * 4, "losses": {"bias": [x for row in values for x in row]}}
    got = page.evaluate(
        """async (answer) => (await import("./page/leaderboard.js")).leaderboard(answer, "bias")""",
        answer,
    )
    table = pa.table(
        {
            "unique_id": [s for s in "abcd" for _ in models],
            "model": answer["models"],
            **answer["losses"],
        }
    )
    want = leaderboard(table, "bias", n_resamples=0).to_arrow().to_pylist()
    assert [row["model"] for row in got["rows"]] == [row["model"] for row in want]
    assert [row["mean"] for row in got["rows"]] == [row["mean"] for row in want]
    assert [row["winRate"] for row in got["rows"]] == [row["win_rate"] for row in want]
    assert [row["failures"] for row in got["rows"]] == [row["num_failures"] for row in want]
    assert (got["compared"], got["series"]) == (want[0]["n"], 4)


def test_csv_is_read_as_python_reads_it(open_page, url):
    page = opened(open_page, url)
    cells = [["a", 'b "x"', "c,d"], ["1", "", "\r\n"], ["", '""', " x "], ["ü\n", ",", "'"]]
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    got = page.evaluate(
        """async (text) => (await import("./page/table.js")).readTable(text)""", text.getvalue()
    )
    assert [[column["name"], *column["cells"]] for column in got] == [
        list(x) for x in zip(*cells, strict=True)
    ]
