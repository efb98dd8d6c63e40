"""Names that libraries keep private, and on which one file each leans."""

import inspect
import re
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOCOL, COMPILED = "service/server/protocol.py", "core/compiled.py"
NAMES = {
    PROTOCOL: (
        "uvicorn",
        {
            "uvicorn.protocols.http.flow_control": "HIGH_WATER_LIMIT FlowControl.pause_reading FlowControl.resume_reading",
            "uvicorn.protocols.http.httptools_impl": """STATUS_LINE
                HttpToolsProtocol.connection_made HttpToolsProtocol.connection_lost
                HttpToolsProtocol.data_received HttpToolsProtocol.eof_received
                HttpToolsProtocol.pause_writing HttpToolsProtocol.resume_writing
                HttpToolsProtocol.on_headers_complete HttpToolsProtocol.on_body
                HttpToolsProtocol.on_message_complete HttpToolsProtocol.on_response_complete
                HttpToolsProtocol.send_400_response HttpToolsProtocol._unsupported_upgrade_warning
                RequestResponseCycle.receive""",
        },
    ),
}
ATTRIBUTES = {
    "HttpToolsProtocol": "loop parser transport flow cycle scope url headers server_state",
    "RequestResponseCycle": "body message_event disconnected response_started response_complete",
    "FlowControl": "read_paused",
}
"""What instances have."""
UPPER_BOUNDS = {"uvicorn": PROTOCOL, "numba": COMPILED}


@pytest.mark.parametrize("file", NAMES)
def test_the_installed_version_has_the_names(file):
    library, modules = NAMES[file]
    moved = []
    for module, names in modules.items():
        for name in names.split():
            found = import_module(module)
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is None:
                moved.append(f"{module}.{name}")
    assert not moved, (
        f"{library} {version(library)} has moved {', '.join(moved)}, on which {file} leans: bound "
        f"{library} below it in pyproject.toml, or change that file"
    )


@pytest.mark.parametrize("owner", ATTRIBUTES)
def test_instances_of_uvicorn_have_the_attributes(owner):
    modules = map(import_module, NAMES[PROTOCOL][1])
    class_ = next(getattr(module, owner) for module in modules if hasattr(module, owner))
    source = inspect.getsource(class_)
    moved = [name for name in ATTRIBUTES[owner].split() if f"self.{name}" not in source]
    assert not moved, (
        f"uvicorn {version('uvicorn')} has moved {', '.join(moved)} of {owner}, on which {PROTOCOL}"
        " leans: bound uvicorn below it in pyproject.toml, or change that file"
    )


@pytest.mark.parametrize("library", UPPER_BOUNDS)
def test_each_such_library_is_bounded_above_and_the_file_names_a_tested_version(library):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [line for line in project["dependencies"] if re.match(rf"{library}\b", line)]
    assert re.search(r"<\d", wanted[0]), f"{library} needs an upper bound in pyproject.toml"
    text = " ".join((ROOT / UPPER_BOUNDS[library]).read_text().split())
    tested = re.search(rf"[Tt]ested with {library} ([\d.]+)(?: and ([\d.]+))?", text)
    assert tested, (
        f"{UPPER_BOUNDS[library]} must say with which versions of {library} it was tested"
    )
    assert version(library).startswith(tested[tested.lastindex]), (
        f"{UPPER_BOUNDS[library]} was not tested with {library} {version(library)}, or does not say so"
    )
