"""The pages of the documentation, and the code blocks on them.

A block is of one kind:

python   runs, with one namespace for all of a page
sh       runs, with a copy of the tree's links around it; lines that call make are looked up; a line
         that serves is started on another port, asked, and stopped as an operator would
json     with "series" in it: is posted to /score; behind a block that ran: is what it printed, or
         what the service answered ("..." stands for any value); elsewhere: parses
output   is what the block before it printed, to the letter
yaml     is a workflow of GitHub; `test_recipes` checks it and runs its commands
text     is nothing that could run

The first line of a python or sh block may say ``# not run by the tests: WHY``.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = ROOT / "docs"
DECISIONS = sorted(DOCS.glob("decisions/0*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("*.md")),
    DOCS / "decisions/index.md",
    *DECISIONS,
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_NOT_RUN = re.compile(r"# not run by the tests: (\w.*)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: The word behind the fence.
        text: What is in it.
        line: Of the fence, counted from 1.
        why_not: Why it does not run; None if it does.
    """

    kind: str
    text: str
    line: int
    why_not: str | None


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page; what directives hold is none."""
    found = []
    for token in tokens(page):
        if token.type == "code_block":
            raise AssertionError(f"{page}:{token.map[0] + 1}: an indented block has no kind")
        if token.type == "fence" and not token.info.startswith("{"):
            match = _NOT_RUN.match(token.content)
            why_not = match[1] if match else None
            found.append(Block(token.info, token.content, token.map[0] + 1, why_not))
    return found


def links(page: Path) -> list[str]:
    """Return the targets of all links of a page."""
    return [
        str(part.attrs["href"])
        for token in tokens(page)
        for part in token.children or ()
        if part.type == "link_open"
    ]


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as code hosts do it."""
    found: set[str] = set()
    heading = False
    for token in tokens(page):
        if heading:
            text = "".join(part.content for part in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            assert slug not in found, f"{page}: two headings are {slug}"
            found.add(slug)
        heading = token.type == "heading_open"
    return found


def rows(page: Path, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, as the text of their cells."""
    below, table, row = False, [], []
    for token, following in zip(tokens(page), [*tokens(page)[1:], None], strict=True):
        if token.type == "heading_open":
            if table:
                break
            below = following.content == heading
        elif below and token.type == "tr_open":
            row = []
        elif below and token.type == "td_open":
            row.append(following.content)
        elif below and token.type == "tr_close" and row:
            table.append(row)
        elif table and token.type == "table_close":
            break
    assert table, f"{page}: no table below {heading!r}"
    return table
