"""Pages hang together: links lead somewhere, every page is in the contents, the site builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from pages import DECISIONS, DOCS, NAMES, PAGES, anchors, links, tokens

import lossclient
from loss_scoring.core import LOSSES

BESIDE = [ROOT / "CHANGELOG.md", ROOT / "lossclient/README.md", ROOT / "deploy/README.md"]
FOLDERS = "core|service|lossclient|docs|bench|tests|examples|deploy"
LINKED = [*PAGES, *BESIDE, *sorted((ROOT / "bench").glob("*.md"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page}: {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}"


def test_files_that_pages_name_exist():
    """Names in code quotes that look like files of this tree are files of it."""
    for page in PAGES:
        for token in tokens(page):
            for part in token.children or ():
                if part.type != "code_inline":
                    continue
                if re.fullmatch(rf"({FOLDERS})/[\w./-]+", part.content):
                    assert (ROOT / part.content).exists(), f"{page}: {part.content}"


def test_every_page_is_in_the_contents():
    contents = [
        token.content for token in tokens(DOCS / "index.md") if token.info.startswith("{toctree}")
    ]
    entries = [line for line in "".join(contents).splitlines() if line and line[0] != ":"]
    assert len(set(entries)) == len(entries)
    for entry in entries:
        path = f"{entry.lstrip('/')}.md"
        where = ROOT if entry.startswith("/") else DOCS
        assert (where / path).is_file(), entry
    named = {f"{page.stem}" for page in DOCS.glob("*.md")} - {"index"}
    assert named <= set(entries), "and the site's first page links to each"
    assert named <= {Path(link).stem for link in links(DOCS / "index.md")}


def test_decisions_are_numbered_short_and_alike():
    assert [page.name[:4] for page in DECISIONS] == [
        f"{n:04}" for n in range(1, len(DECISIONS) + 1)
    ]
    index = DOCS / "decisions/index.md"
    assert {page.name for page in DECISIONS} <= set(links(index))
    for page in DECISIONS:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} "), page
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Options", "Decision", "What would overturn it"], page
        assert len(text.splitlines()) <= 60, page


def test_the_architecture_is_read_in_a_few_minutes():
    assert len((DOCS / "architecture.md").read_text().splitlines()) <= 130


def test_make_targets_exist():
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= set(known), page


def test_the_site_builds_and_needs_no_network(tmp_path):
    """Two seconds; warnings are errors."""
    options = ["-q", "-W", "--keep-going", "-n", "-d", tmp_path / "read"]
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-c", DOCS, *options, ROOT, tmp_path / "site"], check=True
    )
    built = {path.relative_to(tmp_path / "site") for path in tmp_path.glob("site/**/*.html")}
    pages = {page.relative_to(ROOT).with_suffix(".html") for page in PAGES[1:]}
    assert pages <= built
    for path in built:
        html = (tmp_path / "site" / path).read_text()
        assert not re.search(r'<(link|script|img|iframe)\b[^>]*(href|src)="(https?:)?//', html), (
            path
        )


def test_the_names_of_pages_are_told_apart():
    assert len(set(NAMES)) == len(NAMES) >= 9


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference.md").read_text()
    named = set(re.findall(r"auto\w+:: (?:\w+\.)*(\w+)$", text, re.MULTILINE))
    named |= set(vars(lossclient.exceptions))
    modules = {loss.module for loss in LOSSES.values() if loss.module}
    assert {name for name in lossclient.__all__ if name[0] != "_"} | modules <= named


def test_the_picture_of_the_peers_is_drawn_from_their_page():
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import picture
    finally:
        sys.path.remove(str(ROOT / "bench"))
    rows = picture.ratios(picture.PEERS.read_text())
    assert len(rows) == 20
    drawn = picture.PICTURE.read_text()
    for row in rows:
        assert f"ratio: {row['ratio']:g}" in drawn, row
