"""Names that libraries keep private: which file leans on which, and that they are still there.

A file that leans on a library says with which versions it was tested, and ``pyproject.toml`` bounds
the library above. A new version that has moved a name fails here, and the message says what to do.
"""

import inspect
import re
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HTTP = "uvicorn.protocols.http"
FILES = {
    "uvicorn": "service/server/protocol.py",
    "numba": "core/compiled.py",
    "prometheus_client": "service/telemetry/multiprocess.py",
    "triton": "core/kernels/ahead.py",
    "httpx": "lossclient/src/lossclient/reading.py",
    "httpcore": "lossclient/src/lossclient/reading.py",
}
NAMES = {
    "uvicorn": {
        f"{HTTP}.flow_control": "HIGH_WATER_LIMIT FlowControl.pause_reading FlowControl.resume_reading",
        f"{HTTP}.httptools_impl": """STATUS_LINE
            HttpToolsProtocol.connection_made HttpToolsProtocol.connection_lost
            HttpToolsProtocol.data_received HttpToolsProtocol.eof_received HttpToolsProtocol.on_header
            HttpToolsProtocol.pause_writing HttpToolsProtocol.resume_writing
            HttpToolsProtocol.on_headers_complete HttpToolsProtocol.on_body
            HttpToolsProtocol.on_message_complete HttpToolsProtocol.on_response_complete
            RequestResponseCycle.receive""",
    },
    "numba": {
        "numba.core.caching": """
            FunctionCache.save_overload FunctionCache.load_overload FunctionCache.flush
            IndexDataCacheFile._save_data IndexDataCacheFile._load_data IndexDataCacheFile._dump
            IndexDataCacheFile._data_path IndexDataCacheFile._open_for_write
            InTreeCacheLocator.from_function""",
        "numba.core.compiler": "CompilerBase DefaultPassBuilder.define_nopython_pipeline Flags.noalias",
        "numba.core.compiler_lock": "global_compiler_lock.acquire global_compiler_lock.release",
        "numba.core.cpu": "CPUTargetOptions._nrt CPUContext.make_array",
        "numba.core.dispatcher": "Dispatcher",
    },
    "prometheus_client": {
        "prometheus_client": "Histogram",
        "prometheus_client.multiprocess": "mark_process_dead",
        "prometheus_client.values": "ValueClass MutexValue MultiProcessValue",
    },
    "triton": {
        "triton.backends.compiler": "GPUTarget",
        "triton.backends.nvidia.driver": "CudaUtils",
        "triton.knobs": "nvidia_knobs.scope",
        "triton.runtime.cache": "FileCacheManager._make_path",
        "triton.runtime.jit": "JITCallable.cache_key",
        "triton.runtime.driver": "DriverConfig.set_active",
    },
    "httpx": {"httpx": "HTTPTransport"},
    "httpcore": {"httpcore": "ConnectionPool.create_connection HTTPProxy SOCKSProxy"},
}
ATTRIBUTES = {
    f"{HTTP}.httptools_impl.HttpToolsProtocol": "loop parser transport flow cycle scope url headers server_state",
    f"{HTTP}.httptools_impl.RequestResponseCycle": "body message_event disconnected response_started response_complete",
    f"{HTTP}.flow_control.FlowControl": "read_paused",
    "numba.core.caching.Cache": "_cache_file _cache_path _impl",
    "numba.core.caching.IndexDataCacheFile": "_index_path",
    "numba.core.dispatcher.Dispatcher": "_cache",
    "prometheus_client.Histogram": "_buckets _sum _upper_bounds",
    "triton.runtime.driver.DriverConfig": "_active",
    "triton.runtime.cache.FileCacheManager": "key",
    "httpx.HTTPTransport.__init__": "_pool",
    "httpcore.ConnectionPool.__init__": "_network_backend",
}
"""What objects have, which their classes' sources set."""


def found(path: str) -> object:
    """Return what a dotted path names, None if there is nothing."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            thing = getattr(thing, part, None)
        return thing
    return None


def advice(library: str, moved: list[str]) -> str:
    return (
        f"{library} {version(library)} has moved {', '.join(moved)}, on which {FILES[library]} leans: "
        f"bound {library} below that version in pyproject.toml, or change that file"
    )


@pytest.mark.parametrize("library", NAMES)
def test_the_installed_version_has_the_names(library):
    pytest.importorskip(library)
    paths = [
        f"{module}.{name}" for module, names in NAMES[library].items() for name in names.split()
    ]
    paths += [class_ for class_ in ATTRIBUTES if class_.startswith(library)]
    moved = [path for path in paths if found(path) is None]
    assert not moved, advice(library, moved)


@pytest.mark.parametrize("class_", ATTRIBUTES)
def test_objects_of_the_installed_version_have_the_attributes(class_):
    library, source = class_.split(".")[0], inspect.getsource(found(class_))
    moved = [name for name in ATTRIBUTES[class_].split() if f"self.{name}" not in source]
    assert not moved, advice(library, [f"{class_}.{name}" for name in moved])


@pytest.mark.parametrize("library", FILES)
def test_the_installed_version_is_one_that_the_file_was_tested_with(library):
    pytest.importorskip(library)
    text = " ".join((ROOT / FILES[library]).read_text().split())
    tested = re.search(rf"[Tt]ested with {library} (\d+\.\d+(?: and \d+\.\d+)*)", text)
    assert tested, f"{FILES[library]} does not say with which versions of {library} it was tested"
    installed = ".".join(version(library).split(".")[:2])
    assert installed in tested[1].split(" and "), (
        f"{FILES[library]} was tested with {library} {tested[1]}, not {installed}: try it, and say so"
    )


@pytest.mark.parametrize("library", FILES)
def test_each_is_bounded_above(library):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [line for line in project["dependency-groups"]["dev"] if isinstance(line, str)]
    client = tomllib.loads((ROOT / "lossclient/pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *groups, *client["project"]["dependencies"]]
    name = library.replace("_", "-")
    bounds = [line for line in wanted if re.match(rf"{name}\b", line)]
    assert bounds
    assert all(re.search(r"<\d|==", line) for line in bounds), f"{name} needs an upper bound"


def test_no_other_file_imports_what_is_private():
    """What names begin with an underscore, in imports or attributes of such a library."""
    private = re.compile(r"^\s*(?:from|import) [\w.]*\._\w+", re.MULTILINE)
    files = [*ROOT.glob("core/**/*.py"), *ROOT.glob("service/**/*.py")]
    assert len(files) > 50
    assert [str(file.relative_to(ROOT)) for file in files if private.search(file.read_text())] == []
    leaning = {
        str(file.relative_to(ROOT))
        for file in files
        for module in (
            name for modules in NAMES.values() for name in modules if name.count(".") > 1
        )
        if re.search(
            rf"from {re.escape(module)} import|import {re.escape(module)}\b", file.read_text()
        )
    }
    assert leaning <= set(FILES.values())
