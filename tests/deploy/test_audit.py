"""`make audit` says what applies, and does not take silence for safety."""

import json
import subprocess

import audit
import pytest

SOUND = {"name": "a", "version": "1", "vulns": []}
BROKEN = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3", "2.1"]}]}
UNFIXED = {"name": "c", "version": "2", "vulns": [{"id": "CVE-2", "fix_versions": []}]}
UNKNOWN = {"name": "d", "skip_reason": "Dependency not found on PyPI"}
DOWN = "Traceback\nrequests.exceptions.ProxyError: no way out\n"


def printed(*dependencies):
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_every_pin_of_a_lock_is_compared():
    lock = "a-b.c==1.2 \\\n    --hash=sha256:00\ntorch==2.13.0+cpu \\\nd==1 ; python_version > '3'\n# e==2\n"
    assert audit.pins_of(lock) == {"a-b.c": "1.2", "torch": "2.13.0", "d": "1"}
    for path in audit.LOCKS:
        text = path.read_text()
        assert len(audit.pins_of(text)) == text.count("==") > 0


def test_advisories_are_named_with_what_fixes_them():
    assert audit.advisories_in(printed(SOUND, BROKEN, UNFIXED, UNKNOWN), "") == (
        ["b 2: CVE-1, fixed in 3, 2.1", "c 2: CVE-2, fixed in no release"],
        ["d"],
    )


@pytest.mark.parametrize(("stdout", "stderr"), [(printed(UNKNOWN, UNKNOWN), ""), ("", DOWN)])
def test_silence_is_not_safety(stdout, stderr):
    with pytest.raises(audit.UnreachableError):
        audit.advisories_in(stdout, stderr)


def test_a_failure_is_not_silence():
    with pytest.raises(ValueError, match="pip-audit failed: usage"):
        audit.advisories_in("", "usage: pip-audit")


@pytest.mark.parametrize(
    ("stdout", "stderr", "status", "words"),
    [
        (printed(SOUND), "", 0, "constraints.txt: 0 advisories apply"),
        (printed(SOUND, BROKEN), "", 1, "b 2: CVE-1"),
        ("", DOWN, 0, "NOT AUDITED: deploy/locks/build.txt and what follows"),
    ],
)
def test_the_exit_status(stdout, stderr, status, words, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    assert audit.main("pip-audit") == status
    assert words in capsys.readouterr().out
