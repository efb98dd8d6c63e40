"""A rolling restart of two instances shows no error to a client that retries.

Eight httpx clients ask one instance and, on a connection error or a retryable answer, the other.
Both instances are ended by SIGTERM and started again on their port, one after the other. It fails
when a stopping instance answers wrongly, cuts an answer, or claims to be ready too early.
"""

import contextlib
import itertools
import random
import threading
import time
from collections import Counter

import httpx
from finding import Finding, at_least, at_most
from instance import Instance, instance

RETRIES = 6


def _ask(client: httpx.Client, urls: list[str], tag: float, seen: Counter[str]) -> None:
    series = {"prediction": [tag] * 500, "target": [0.0] * 500}
    for url in itertools.islice(itertools.cycle(urls), RETRIES):
        try:
            answer = client.post(f"{url}/score", json={"losses": ["mae"], "series": [series]})
        except httpx.TransportError:
            seen["retried"] += 1
        else:
            if answer.status_code == 200:
                right = answer.json()["losses"]["mae"] == [tag]
                seen["right" if right else "wrong"] += 1
                return
            if not answer.json().get("retryable"):
                break
            seen["retried"] += 1
        time.sleep(random.uniform(0.01, 0.1))
    seen["error"] += 1


def _client(n: int, urls: list[str], stop: threading.Event, seen: Counter[str]) -> None:
    with httpx.Client(timeout=30) as client:
        for k in itertools.count():
            if stop.is_set():
                return
            order = urls if (n + k) % 2 else urls[::-1]
            _ask(client, order, float(n * 10_000 + k % 10_000 + 1), seen)


def _restart(stack: contextlib.ExitStack, old: Instance) -> tuple[Instance, float]:
    old.signal()
    code = old.exit_code(40)
    return stack.enter_context(instance(port=old.port)), code


def run(rounds: int = 2, clients: int = 8) -> list[Finding]:
    stop, seen, codes = threading.Event(), Counter[str](), []
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(instance()) for _ in range(2)]
        urls = [one.url for one in pair]
        threads = [
            threading.Thread(target=_client, args=(n, urls, stop, seen)) for n in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            for n in range(2 * rounds):
                time.sleep(1)
                pair[n % 2], code = _restart(stack, pair[n % 2])
                codes.append(code)
            time.sleep(1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    print(dict(seen))
    return [
        at_most(f"errors seen in {2 * rounds} rolling restarts", seen["error"] + seen["wrong"], 0),
        at_most("largest exit code", max(map(abs, codes)), 0),
        at_least("right answers meanwhile", seen["right"], 500),
        at_least("retries, which show that it was restarted under load", seen["retried"], 1),
    ]
