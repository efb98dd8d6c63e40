"""The set of keys, without a server: what is a key, and what a changed file does."""

import logging
import os
import re

import pytest

from loss_scoring.service.api.auth import Keys
from loss_scoring.service.settings import Settings

OLD, NEW, OTHER = "old-key.0123456789", "new+key/0123456789==", "other~key_0123456789"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "keys"
    made.write_text(f"# pipeline\n{OLD}  # until May\r\n\n")
    return made


def allows(keys: Keys, key: str) -> bool:
    return keys.holder(f"Bearer {key}".encode()) is not None


def rewrite(file, text: str) -> None:
    """Replace the file as it should be done, by a rename."""
    beside = file.with_name("new")
    beside.write_text(text)
    beside.rename(file)


def test_several_from_both_sources(file, clock):
    keys = Keys(f"{NEW}, {OTHER}", file, clock=clock)
    assert all(allows(keys, key) for key in (OLD, NEW, OTHER))
    assert not allows(keys, "unknown-0123456789")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", OLD, f"Basic {OLD}", f"Bearer {OLD}x", f"Bearer {OLD[:-1]}",
     f"Bearer {OLD} {OLD}", f"Bearer {OLD}, Bearer {OLD}", f"Bearer {OLD.upper()}", "Bearer \xff"],
)  # fmt: skip
def test_other_headers_are_refused(file, clock, header):
    assert Keys(None, file, clock=clock).holder(header.encode("latin-1")) is None


def test_the_scheme_is_read_without_case(file, clock):
    keys = Keys(None, file, clock=clock)
    assert keys.holder(f"bearer  {OLD} ".encode())


def test_rotation_is_seen_within_a_second(file, clock):
    keys = Keys(None, file, clock=clock)
    rewrite(file, f"{OLD}\n{NEW}")
    assert not allows(keys, NEW)
    clock.now = 1.0
    assert allows(keys, NEW)
    assert allows(keys, OLD)
    rewrite(file, NEW)
    clock.now = 2.0
    assert allows(keys, NEW)
    assert not allows(keys, OLD)


def test_a_file_that_cannot_be_read_leaves_the_keys_and_is_logged_once(file, clock, caplog):
    keys = Keys(None, file, clock=clock)
    file.unlink()
    for clock.now in (1.0, 2.0, 3.0):
        assert allows(keys, OLD)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.ERROR
    file.write_text(f"{NEW}\nshort")
    for clock.now in (4.0, 5.0):
        assert allows(keys, OLD)
        assert not allows(keys, NEW)
    assert len(caplog.records) == 2
    assert "line 2" in caplog.text
    assert "short" not in caplog.text
    file.write_text(NEW)
    clock.now = 6.0
    assert allows(keys, NEW)


def folder(path):
    path.mkdir()


def link_to_endless_zeros(path):
    path.symlink_to("/dev/zero")


def huge(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no disk


@pytest.mark.parametrize("become", [os.mkfifo, folder, link_to_endless_zeros, huge])
def test_what_is_no_small_file_is_not_waited_for_and_leaves_the_keys(file, clock, caplog, become):
    keys = Keys(None, file, clock=clock)
    file.unlink()
    become(file)
    for clock.now in (1.0, 2.0):
        assert allows(keys, OLD)
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    with pytest.raises(ValueError, match=re.escape(str(file))):
        Keys(None, file, clock=clock)
    if file.is_dir():
        file.rmdir()
    rewrite(file, NEW)
    clock.now = 3.0
    assert allows(keys, NEW)
    assert not allows(keys, OLD)


@pytest.mark.parametrize("text", ["", "# none yet\n"])
def test_an_empty_file_admits_nobody_and_is_logged(tmp_path, clock, caplog, text):
    file = tmp_path / "keys"
    file.write_text(text)
    keys = Keys(None, file, clock=clock)
    assert "nobody is admitted" in caplog.text
    assert keys.holder(b"") is None
    assert keys.holder(b"Bearer ") is None
    assert not allows(keys, OLD)


@pytest.mark.parametrize(
    "bad", ["short", "fifteen.letters", "a key with spaces", "kéy-0123456789-0123"]
)
def test_an_invalid_key_is_refused_at_start_and_not_shown(tmp_path, clock, bad):
    file = tmp_path / "keys"
    file.write_text(f"{OLD}\n{bad}\n")
    with pytest.raises(ValueError, match=r"line 2: a key has at least 16") as raised:
        Keys(None, file, clock=clock)
    assert bad not in str(raised.value)
    with pytest.raises(ValueError, match="key 2: a key has at least 16") as raised:
        Keys(f"{OLD},{bad}", None, clock=clock)
    assert bad not in str(raised.value)


@pytest.mark.parametrize("given", ["", " , "])
def test_an_empty_variable_does_not_open_the_service(clock, given):
    with pytest.raises(ValueError, match="holds no key"):
        Keys(given, None, clock=clock)


def test_a_missing_file_is_refused_at_start(tmp_path, clock):
    with pytest.raises(ValueError, match="cannot be read"):
        Keys(None, tmp_path / "missing", clock=clock)


def test_settings_do_not_show_keys(monkeypatch):
    monkeypatch.setenv("LOSS_SCORING_API_KEYS", OLD)
    settings = Settings()
    assert OLD not in repr(settings) + str(settings) + settings.model_dump_json()
    keys = Keys.of(settings)
    assert keys is not None
    assert OLD not in repr(vars(keys))
    monkeypatch.delenv("LOSS_SCORING_API_KEYS")
    assert Keys.of(Settings()) is None


def test_an_empty_variable_differs_from_a_missing_one(monkeypatch):
    monkeypatch.setenv("LOSS_SCORING_API_KEYS", "")
    with pytest.raises(ValueError, match="holds no key"):
        Keys.of(Settings())
