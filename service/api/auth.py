"""Keys that requests must carry (RFC 6750), from the environment or a file, several at once.

Only SHA-256 digests are stored, so that no key can reach a log, and all have one length. To rotate,
add a key, move the clients, remove the old one. The file is polled once a second at most; write a
new one beside it and rename it, so that it is never read half written. What cannot be read, or is
no file of at most 64 KiB, leaves the keys as they are; a file without keys admits nobody.

The supervisor checks the keys as well, and imports no torch: neither does this.
"""

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

from loss_scoring.service.api.page import PAGES
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import PROBES

log = logging.getLogger(__name__)

_KEY = re.compile(rb"[A-Za-z0-9._~+/-]{16,}=*")  # b64token of RFC 6750, and not short
_WANTED = "a key has at least 16 of A-Z a-z 0-9 - . _ ~ + /"
_BEARER = re.compile(rb"bearer +(\S+)", re.IGNORECASE)
_POLL_S = 1.0
_MAX_FILE_BYTES = 1 << 16
"""Thousands of keys. Each request is compared with all."""


class Keys:
    """The keys that are valid now.

    Args:
        given: Keys that stay, separated by commas; None for none.
        file: File of others, one a line, ``#`` begins a comment; None for no file.
        open_paths: Paths that need no key.
        clock: Seconds, for the tests.

    Raises:
        ValueError: If a key is too short or no key, or the file cannot be read.
    """

    def __init__(
        self,
        given: str | None,
        file: Path | None,
        open_paths: Collection[str] = PROBES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open_paths = open_paths
        self._given: tuple[bytes, ...] = ()
        if given is not None:
            self._given = _digests(
                given.encode("utf-8", "replace").split(b","), "LOSS_SCORING_API_KEYS", "key"
            )
            if not self._given:  # a secret that was not filled in must not open the service
                raise ValueError("LOSS_SCORING_API_KEYS holds no key; unset it to need none")
        self._file, self._clock = file, clock
        self._polled = clock()
        self._seen: object = None
        self._of_file: tuple[bytes, ...] = ()
        if file is not None:
            try:
                self._read(file)
            except OSError as error:
                raise ValueError(f"api_keys_file cannot be read: {error}") from error

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the keys that the settings name; None if they ask for none."""
        secret, file = settings.api_keys, settings.api_keys_file
        if secret is None and file is None:
            return None
        open_paths: set[str] = set()
        if not settings.auth_probes:
            open_paths |= PROBES
        if not settings.auth_pages:
            open_paths |= PAGES
        return cls(None if secret is None else secret.get_secret_value(), file, open_paths)

    def holder(self, authorization: bytes) -> str | None:
        """Return a name for the key in an Authorization header, None if it carries none of these.

        It takes the same time for any key, and the name does not reveal it.
        """
        self._poll()
        match = _BEARER.fullmatch(authorization.strip())
        digest = hashlib.sha256(match[1] if match else b"").digest()
        matches = [hmac.compare_digest(digest, key) for key in (*self._given, *self._of_file)]
        return f"key {digest.hex()}" if any(matches) else None

    def _poll(self) -> None:
        """Read the file again if it changed."""
        now = self._clock()
        if self._file is None or now - self._polled < _POLL_S:
            return
        self._polled = now
        try:
            self._read(self._file)
        except (OSError, ValueError) as error:
            if str(error) != self._seen:  # logged once, not every second
                self._seen = str(error)
                log.error("api_keys_file: %s; the keys stay as they were", error)  # noqa: TRY400

    def _read(self, file: Path) -> None:
        signature = _signature(file.stat())
        if signature == self._seen:
            return
        signature, text = _content(file)
        self._of_file = _digests(text.splitlines(), str(file), "line")
        self._seen = signature
        if not (self._of_file or self._given):
            log.warning("api_keys_file %s holds no key: nobody is admitted", file)
        else:
            log.info("%d keys in %s", len(self._of_file), file)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _content(file: Path) -> tuple[tuple[int, ...], bytes]:
    """Return the signature and the content of a file, without waiting for a pipe."""
    with open(
        file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    ) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file} is not a regular file")
        text = opened.read(_MAX_FILE_BYTES + 1)
    if len(text) > _MAX_FILE_BYTES:
        raise ValueError(f"{file} has more than {_MAX_FILE_BYTES} bytes")
    return _signature(status), text


def _digests(lines: list[bytes], where: str, unit: str) -> tuple[bytes, ...]:
    """Return the digest of every key; errors name its position, never the key."""
    digests = []
    for number, line in enumerate(lines, start=1):
        key = line.partition(b"#")[0].strip()
        if not key:
            continue
        if not _KEY.fullmatch(key):
            raise ValueError(f"{where}, {unit} {number}: {_WANTED}")
        digests.append(hashlib.sha256(key).digest())
    return tuple(digests)
