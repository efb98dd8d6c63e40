"""What compiles the loops: the options of numba that it leans on, and the cache on disk."""

import contextlib
import errno
import os
import re
import resource
from pathlib import Path

import numba
import pytest
from family import descriptor_numbers
from numba.core.caching import IndexDataCacheFile, InTreeCacheLocator
from numba.core.cpu import CPUTargetOptions

from loss_scoring.core import ScoreOptions, compiled
from loss_scoring.core.kernels import fused_cpu
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.json.loop import read_series


def test_numba_has_the_private_option():
    assert hasattr(CPUTargetOptions, "_nrt"), (
        f"numba {numba.__version__} has no option _nrt, with which core/compiled.py keeps "
        "reference counts out of the loops: bound numba below it in pyproject.toml, or pass "
        "addresses instead of arrays to the helpers of the JSON reader"
    )


LOOP = fused_cpu.Plan(ScoreOptions(), weighted=False).loops[0]
DEFAULT = LOOP.sweep(8, gradients=False, known=False)


@pytest.mark.parametrize(
    ("loop", "warm_up"),
    [(read_series, json.warm_up), (DEFAULT, fused_cpu.warm_up)],
    ids=["json", "kernel"],
)
def test_loops_count_no_references(loop, warm_up):
    warm_up()
    # numba does not disassemble what it read from its cache; a call shows there as a symbol.
    kept = list(Path(loop.stats.cache_path).glob(f"*.{loop.py_func.__qualname__}-*.nbc"))
    assert len(kept) >= len(loop.signatures) > 0
    called = {name for file in kept for name in re.findall(rb"NRT_\w+", file.read_bytes())}
    assert not called, (
        f"numba {numba.__version__} counts references in {loop.__name__} despite _nrt=False, "
        "which makes reading JSON three times as slow"
    )


def test_without_a_folder_for_the_cache_it_warns_and_works(monkeypatch):
    def refuse(_function):
        raise RuntimeError("no locator available")

    def loop(number):
        return number + 1

    monkeypatch.setattr(compiled, "_Cache", refuse)
    with pytest.warns(UserWarning, match="cannot cache"):
        assert compiled.compiled(loop)(1) == 2


@pytest.mark.parametrize("step", ["ensure_cache_path", "save"])
def test_where_the_cache_cannot_be_written_it_warns_and_works(monkeypatch, step):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    def loop(number):
        return number + 1

    owner = IndexDataCacheFile if step == "save" else InTreeCacheLocator
    monkeypatch.setattr(owner, step, refuse)
    monkeypatch.setattr(compiled._Cache._impl_class, "_locator_classes", [compiled.PackagedCache])
    one = compiled.compiled(loop)
    with pytest.warns(UserWarning, match="each start compiles: Read-only"):
        assert one(1) == 2
    with pytest.warns(UserWarning, match="each start compiles: Read-only"):
        assert one(1.5) == 2.5


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut short", "flipped", "foreign"])
def test_a_damaged_cache_is_named_and_compiled_again(tmp_path, monkeypatch, ending, damage):
    def hits():
        def loop(number):
            return number + 1

        one = compiled.compiled(loop)
        assert one(1) == 2
        return sum(one.stats.cache_hits.values())

    def damaged(whole):
        return {
            "empty": b"",
            "cut short": whole[: len(whole) // 2],
            "flipped": whole[: len(whole) // 2] + b"?" + whole[len(whole) // 2 + 1 :],
            "foreign": b"not of this program",
        }[damage]

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert (hits(), hits()) == (0, 1)
    (file,) = tmp_path.rglob(f"*.{ending}")
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    if (ending, damage) == ("nbi", "flipped"):
        hits()  # some flips change nothing
        return
    with pytest.warns(UserWarning, match=f"compiling again, as the cache {tmp_path}"):
        assert hits() == 0
    assert hits() == 1, "it was replaced"


def test_cached_code_is_named_after_all_of_its_sources(tmp_path):
    def name(text):
        def loop():
            pass

        (tmp_path / "source.py").write_text(text)
        return compiled.compiled(loop, [tmp_path / "source.py"]).__qualname__

    assert name("a = 1") == name("a = 1") != name("a = 2")


def test_the_cache_of_an_image_is_read_where_nothing_can_be_written(monkeypatch):
    def read_only(_locator):
        raise OSError("Read-only file system")

    monkeypatch.setattr(compiled.InTreeCacheLocator, "ensure_cache_path", read_only)
    assert compiled.InTreeCacheLocator.from_function(read_only, __file__) is None
    packaged = compiled.PackagedCache.from_function(read_only, __file__)
    assert Path(packaged.get_cache_path()) == Path(__file__).parent / "__pycache__"
    assert packaged.get_source_stamp()


@pytest.mark.parametrize("missing", [False, True], ids=["loaded", "absent"])
def test_a_file_can_be_opened_without_descriptors(tmp_path, missing):
    path = tmp_path / "code"
    if not missing:
        path.write_bytes(b"code")
    read = compiled.with_spare_descriptor(path.read_bytes)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = descriptor_numbers(os.getpid())
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 2, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(2):  # it is taken back
            with pytest.raises(FileNotFoundError) if missing else contextlib.nullcontext():
                assert read() == b"code"
        with pytest.raises(OSError, match="Too many open files"):
            path.read_bytes()
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
