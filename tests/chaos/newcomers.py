"""A burst of new connections is let in while others keep the server busy.

32 clients keep the event loop turning with middling requests; then 300 connect at once and each
sends one tiny request. It fails when the loop accepts one connection a turn, as libuv does: the
last of 300 newcomers then waits for 300 turns.
"""

import asyncio

from finding import Finding, at_least, at_most, quantile
from instance import SERVE, Instance, instance
from overload import request
from traffic import Connection, play, post, tagged


async def _crowd(running: Instance, newcomers: int, settled: int) -> tuple[list[float], int]:
    body = request(3000)
    served = 0

    async def busy() -> None:
        nonlocal served
        connection = await Connection.open(running, "127.0.0.2")
        while True:
            answer = await connection.ask(body)
            served += answer.status == 200

    async def newcomer() -> float:
        connection = await Connection.open(running, "127.0.0.3")
        answer = await connection.ask(post(tagged(1.0)))
        connection.hang_up()
        return answer.seconds if answer.status == 200 else float("inf")

    tasks = [asyncio.create_task(busy()) for _ in range(settled)]
    await asyncio.sleep(2)
    before = served
    seconds = await asyncio.gather(*(newcomer() for _ in range(newcomers)))
    served -= before
    for task in tasks:
        task.cancel()
    return seconds, served


def run(newcomers: int = 300, settled: int = 32, command=SERVE) -> list[Finding]:
    with instance(command) as running:
        seconds, served = play(_crowd(running, newcomers, settled))
    return [
        at_most(f"p99 of {newcomers} newcomers at once beside {settled} busy clients",
                quantile(seconds, 0.99), 0.5, "s"),
        at_least("requests of the busy clients served meanwhile", served, 10),
    ]  # fmt: skip
