"""A browser without a window, spoken to over a pipe by the Chrome DevTools Protocol."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
WAIT = """
const wait = async (look) => {
  for (let n = 0; n < 600; n++) {
    const found = look();
    if (found) return found;
    await new Promise(done => setTimeout(done, 50));
  }
  throw new Error(`waited in vain for ${look}`);
};
const shown = (selector) => wait(() => document.querySelector(selector));
"""


class Page:
    """One page; messages are JSON with a NUL behind each."""

    def __init__(self, reads: IO[bytes], writes: IO[bytes], url: str) -> None:
        self._reads, self._writes = reads, writes
        self._count, self._session = 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Page.navigate", url=url)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        self._writes.write(json.dumps(message).encode() + b"\0")
        self._writes.flush()
        while True:
            raw = bytearray()
            while (byte := self._reads.read(1)) != b"\0":
                assert byte, "the browser ended"
                raw += byte
            answer = json.loads(raw)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str, **options: Any) -> dict[str, Any]:
        """Run the body of an async function; return what it returns, as an object of the protocol."""
        expression = f"(async () => {{ {WAIT} {script} }})()"
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]

    def value(self, script: str) -> Any:
        return self.run(script, returnByValue=True).get("value")

    def choose_file(self, selector: str, path: str) -> None:
        found = self.run(f"return await shown({selector!r})")
        self.call("DOM.setFileInputFiles", files=[path], objectId=found["objectId"])


@contextlib.contextmanager
def page_of(url: str) -> Iterator[Page]:
    assert CHROMIUM is not None
    takes, ours_writes = os.pipe()
    ours_reads, gives = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            # The browser reads from descriptor 3 and writes to 4.
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{takes} 4>&{gives}',
                "bash",
                CHROMIUM,
                *_FLAGS,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(takes, gives),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(takes)
        os.close(gives)
        try:
            with os.fdopen(ours_reads, "rb") as reads, os.fdopen(ours_writes, "wb") as writes:
                yield Page(reads, writes, url)
        finally:
            process.terminate()
            process.wait()
