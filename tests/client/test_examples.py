"""Every example of the client's README and docstrings runs as it is printed."""

import doctest
import importlib
import pkgutil
import re

import pytest
from conftest import ROOT

import lossclient

PRINTED = "http://127.0.0.1:8000"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "lossclient/README.md").read_text(), re.DOTALL)
MODULES = [f"lossclient.{module.name}" for module in pkgutil.iter_modules(lossclient.__path__)]


def marked(sources):
    """Mark what needs darts, which has an environment of its own (make test-darts)."""
    return [
        pytest.param(text, marks=pytest.mark.darts if "lossclient.darts" in text else ())
        for text in sources
    ]


def skip_without_darts(text):
    if "lossclient.darts" in text:
        pytest.importorskip("darts")


@pytest.mark.parametrize("source", marked(BLOCKS))
def test_readme(source, url, capsys):
    skip_without_darts(source)
    exec(compile(source.replace(PRINTED, url), "README", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", marked(MODULES))
def test_docstrings(name, url):
    skip_without_darts(name)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        for example in test.examples:
            example.source = example.source.replace(PRINTED, url)
        assert runner.run(test).failed == 0


def test_there_are_examples():
    assert len(BLOCKS) >= 6
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES if name != "lossclient.darts"]
    found = [test for module in modules for test in finder.find(module)]
    assert sum(bool(test.examples) for test in found) >= 6


def test_the_tree_of_exceptions_is_drawn_as_it_is():
    """Each line is two levels deep at most: its parent is the last name with less before it."""
    from lossclient import exceptions

    path = [exceptions.LossClientError]
    for line in exceptions.__doc__.splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)", line)
        if not match or "─" not in match[1]:
            continue
        kind = getattr(exceptions, match[2])
        depth = len(match[1]) // 4
        path[depth:] = [kind]
        assert kind.__bases__[0] is path[depth - 1]
    drawn = set(re.findall(r"[├└]── (\w+)", exceptions.__doc__))
    defined = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert drawn == defined - {"LossClientError"}
    assert defined < set(lossclient.__all__) | {"LossClientError"}
