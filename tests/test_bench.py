"""The benchmarks, which no test runs, ask our modules only for names that they have."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("script", sorted(BENCH.rglob("*.py")), ids=lambda path: path.stem)
def test_names_are_there(script):
    nodes = list(ast.walk(ast.parse(script.read_text())))
    modules = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("loss_scoring"):
            imported = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(imported, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                if isinstance(value := getattr(imported, alias.name), ModuleType):
                    modules[alias.asname or alias.name] = value
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), f"line {node.lineno}"
