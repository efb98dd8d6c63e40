"""Every code block of README.md and docs/*.md runs as it is printed; `pages` says what that means."""

import re
import subprocess

import pytest
from conftest import ROOT
from pages import NAMES, PAGES, Block, blocks
from running import Runner, assert_like, prepare


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page, url, tmp_path):
    prepare(tmp_path)
    runner = Runner(page.name, url, tmp_path)
    for block in blocks(page):
        runner.run(block)
    runner.finish()
    left = [one for one in blocks(page) if one not in runner.ran and one not in runner.looked_up]
    assert all(one.kind == "text" or one.why_not for one in left)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_block_is_overlooked(page):
    """Counted without a parser: fences come in pairs, and directives are no code."""
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", page.read_text(), re.MULTILINE)
    directives = [fence for fence in fences if fence.startswith("{")]
    assert len(fences) == 2 * (len(blocks(page)) + len(directives))


def test_most_blocks_run():
    everything = [block for page in PAGES for block in blocks(page)]
    code = [block for block in everything if block.kind in ("python", "sh")]
    not_run = [block for block in code if block.why_not and "make test-" not in block.why_not]
    assert len(code) >= 20
    assert len(not_run) <= 5, [block.why_not for block in not_run]


@pytest.fixture
def runner(url, tmp_path):
    prepare(tmp_path)
    return Runner("page", url, tmp_path)


def block(kind, text, why_not=None):
    return Block(kind, text, 1, why_not)


GOOD = '{"series": [{"prediction": [1], "target": [3]}], "losses": ["mae"]}'
BAD = '{"series": [{"prediction": [1], "target": []}]}'


@pytest.mark.parametrize(
    "wrong",
    [
        [("python", "1 / 0")],
        [("sh", "false\necho 1")],
        [("sh", "make nothing-of-the-kind")],
        [("sh", "loss-scoring serve --no-such-flag")],
        [("sh", "loss-scoring serve --max-elements 0")],
        [("sh", "LOSS_SCORING_NO_SUCH=1 true")],
        [("python", "print('[1]')"), ("json", "[2]")],
        [("python", "print(1)"), ("output", "2")],
        [("output", "1")],
        [("json", GOOD), ("json", '{"ids": [0], "lengths": [1], "losses": {"mae": [1]}, "masked": {}}')],
        [("json", BAD)],
        [("json", BAD), ("json", GOOD)],
        [("json", "{")],
        [("text", "curl -s http://127.0.0.1:8000/losses")],
        [("", "x")],
        [("console", "x")],
    ],
)  # fmt: skip
def test_the_runner_fails(runner, wrong):
    def run():
        for kind, text in wrong:
            runner.run(block(kind, text))
        runner.finish()

    with pytest.raises(Exception):  # noqa: B017, PT011 - assertions, exit codes and bugs alike
        run()


@pytest.mark.parametrize(
    ("kind", "text"), [("python", "def"), ("sh", "if"), ("sh", "loss-scoring serve --no-such 1")]
)
def test_blocks_that_do_not_run_are_read(runner, kind, text):
    with pytest.raises((SyntaxError, AssertionError, subprocess.CalledProcessError)):
        runner.run(block(kind, text, "it is tested"))


def test_the_runner_runs(runner, url):
    for kind, text in [
        ("python", "x = 1"),
        ("python", "print(x)"),
        ("json", "1"),
        ("sh", "curl -s http://127.0.0.1:8000/livez"),
        ("json", '{"status": "..."}'),
        ("json", GOOD),
        ("json", '{"ids": [0], "lengths": [1], "losses": {"mae": [2.0]}, "masked": {}}'),
        ("json", '{"alone": 1}'),
    ]:
        runner.run(block(kind, text))
    runner.finish()
    assert len(runner.ran) == 7
    assert len(runner.looked_up) == 1
    assert_like({"a": [1, 2]}, {"a": "..."}, "")
    assert (ROOT / "docs/index.md") in PAGES
