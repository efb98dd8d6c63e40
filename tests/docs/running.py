"""Runs the blocks of one page, as a reader would from top to bottom."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from conftest import ROOT
from instance import serving
from pages import Block

_PRINTED = "http://127.0.0.1:8000"
_FLAG = re.compile(r"loss-scoring serve[^#\n]*")
_SERVES = re.compile(r"(?:[A-Z_]+=\S+ )*loss-scoring serve[^\n]*\n?")


def prepare(directory: Path) -> None:
    """Lay out a directory that looks like the tree from where a reader stands in it."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (directory / entry.name).symlink_to(entry)
    (directory / ".venv").symlink_to(sys.prefix)


class Runner:
    """Runs blocks.

    Args:
        page: For messages.
        url: Where the service is that the page shows at port 8000.
        directory: Where commands run.
    """

    def __init__(self, page: str, url: str, directory: Path) -> None:
        self._page, self._url, self._directory = page, url, directory
        self._namespace: dict[str, Any] = {"__name__": "page"}
        self._printed: str | None = None
        self._unread: int | None = None
        """The status of an error that no block has shown yet."""
        self.ran: list[Block] = []
        self.looked_up: list[Block] = []

    def run(self, block: Block) -> None:
        """Run a block, or compare it with what the one before it printed."""
        if block.kind not in ("json", "output"):
            self.finish()
        if block.why_not is not None:
            self._only_read(block)
            return
        do = {
            "python": self._python,
            "sh": self._sh,
            "json": self._json,
            "output": self._output,
            "yaml": self.looked_up.append,
            "text": self._text,
        }.get(block.kind)
        assert do is not None, f"{self._page}:{block.line}: no such kind of block: {block.kind!r}"
        do(block)

    def _only_read(self, block: Block) -> None:
        """Check as much of a block as can be without running it."""
        check_flags(block.text)
        if block.kind == "python":
            compile("\n" * block.line + block.text, self._page, "exec")
        else:
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        self._printed = None

    def __getitem__(self, name: str) -> Any:
        """Return what the page has named so."""
        return self._namespace[name]

    def finish(self) -> None:
        """Fail if a request was refused and the page did not say so."""
        assert self._unread is None, f"{self._page}: a request shown gets {self._unread}"

    def _python(self, block: Block) -> None:
        source = block.text.replace(_PRINTED, self._url)
        code = compile("\n" * block.line + source, self._page, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(self._directory):
            exec(code, self._namespace)  # noqa: S102 - our own pages
        self._printed = printed.getvalue()
        self.ran.append(block)

    def _sh(self, block: Block) -> None:
        if all(re.match(r"make [a-z-]+( [A-Z]+=\S+)?( +#.*)?$", line) for line in _lines(block)):
            known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {line.split()[1] for line in _lines(block)} <= set(known)
            self.looked_up.append(block)
            self._printed = None
            return
        check_flags(block.text)
        if _SERVES.fullmatch(block.text):
            self._serve(block)
            return
        run = subprocess.run(
            ["bash", "-ec", block.text.replace(_PRINTED, self._url)],
            cwd=self._directory,
            env=os.environ | {"PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self._printed = run.stdout
        self.ran.append(block)

    def _serve(self, block: Block) -> None:
        """Start a service until it is ready, and hold it to an exit status of 0."""
        words = shlex.split(block.text)
        first = words.index("loss-scoring")
        variables = dict(word.split("=", 1) for word in words[:first])
        command = [Path(sys.prefix) / "bin" / words[first], *words[first + 1 :]]
        with contextlib.chdir(self._directory), serving(*command, **variables):
            self.ran.append(block)
        self._printed = None

    def _json(self, block: Block) -> None:
        document = json.loads(block.text)
        if isinstance(document, dict) and "series" in document:
            self.finish()
            answer = httpx.post(f"{self._url}/score", json=document, timeout=60)
            self._unread = None if answer.is_success else answer.status_code
            self._printed = answer.text
            self.ran.append(block)
        elif self._printed is not None:
            assert_like(json.loads(self._printed), document, f"{self._page}:{block.line}")
            self._printed = self._unread = None
            self.ran.append(block)
        else:
            self.looked_up.append(block)

    def _output(self, block: Block) -> None:
        assert self._printed is not None, f"{self._page}:{block.line}: output of nothing"
        assert _trimmed(self._printed) == _trimmed(block.text), f"{self._page}:{block.line}"
        self.ran.append(block)

    def _text(self, block: Block) -> None:
        runnable = re.search(
            r"^\s*(\$|import |from \w+ import|curl |pip |loss-scoring )",
            block.text,
            re.MULTILINE,
        )
        assert not runnable, f"{self._page}:{block.line}: could run, but is text"
        self._printed = None


def check_flags(text: str) -> None:
    """Look up the flags of commands that start a service."""
    from loss_scoring.service.settings import Settings

    for command in _FLAG.findall(text):
        names = [flag.replace("-", "_") for flag in re.findall(r" --([a-z-]+)", command)]
        assert set(names) <= set(Settings.model_fields), command
    variables = re.findall(r"\bLOSS_SCORING_([A-Z_]+)=", text)
    assert {name.lower() for name in variables} <= set(Settings.model_fields), text


def assert_like(found: Any, shown: Any, where: str) -> None:
    """Compare JSON with what a page shows, where "..." stands for anything."""
    if shown == "...":
        return
    if isinstance(shown, dict) and isinstance(found, dict):
        assert found.keys() == shown.keys(), where
        for key in shown:
            assert_like(found[key], shown[key], f"{where} {key}")
    elif isinstance(shown, list) and isinstance(found, list):
        assert len(found) == len(shown), where
        for i, (one, other) in enumerate(zip(found, shown, strict=True)):
            assert_like(one, other, f"{where} {i}")
    else:
        assert found == shown, where


def _lines(block: Block) -> list[str]:
    return block.text.strip().splitlines()


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]
