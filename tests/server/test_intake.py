"""Chunks of a body reach the application as the parser made them, and no faster than it asks."""

import asyncio
from types import SimpleNamespace

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from loss_scoring.service.server.intake import Intake


class Flow:
    paused = False

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


class Wire(list):
    def write(self, data):
        self.append(data)

    def is_closing(self):
        return False


def made():
    cycle = SimpleNamespace(
        message_event=asyncio.Event(),
        more_body=True,
        disconnected=False,
        response_complete=False,
        waiting_for_100_continue=False,
        transport=Wire(),
    )
    flow = Flow()
    return Intake(cycle, flow), cycle, flow


def end(cycle):
    cycle.more_body = False
    cycle.message_event.set()


def test_chunks_come_in_order_and_uncopied():
    async def main():
        intake, cycle, _ = made()
        chunks = [b"x" * (HIGH_WATER_LIMIT - n) for n in (5, 3, 8)]
        for chunk in chunks:
            intake.add(chunk)
        got = [await intake.receive() for _ in range(2)]
        end(cycle)
        got.append(await intake.receive())
        assert all(one["body"] is chunk for one, chunk in zip(got, chunks, strict=True))
        assert [one["more_body"] for one in got] == [True, True, False]

    asyncio.run(main())


def test_tiny_chunks_are_merged_up_to_a_limit():
    async def main():
        intake, cycle, _ = made()
        for i in range(2 * HIGH_WATER_LIMIT):
            intake.add(b"%d" % (i % 10))
        end(cycle)
        got = []
        while not got or got[-1]["more_body"]:
            got.append(await intake.receive())
        assert len(got) == 2
        body = b"".join(one["body"] for one in got)
        assert body == b"0123456789" * (HIGH_WATER_LIMIT // 5) + b"01"[: 2 * HIGH_WATER_LIMIT % 10]

    asyncio.run(main())


def test_an_end_that_comes_late_is_an_empty_chunk():
    async def main():
        intake, cycle, _ = made()
        intake.add(b"all")
        assert (await intake.receive())["more_body"]
        waiting = asyncio.ensure_future(intake.receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        end(cycle)
        assert await waiting == {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(main())


def test_after_the_end_only_a_disconnect_is_news():
    async def main():
        intake, cycle, _ = made()
        intake.add(b"all")
        end(cycle)
        assert not (await intake.receive())["more_body"]
        waiting = asyncio.ensure_future(intake.receive())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        cycle.disconnected = True
        cycle.message_event.set()
        assert (await waiting)["type"] == "http.disconnect"
        assert (await intake.receive())["type"] == "http.disconnect"

    asyncio.run(main())


def test_reading_pauses_while_much_waits():
    async def main():
        intake, _, flow = made()
        intake.add(b"x" * HIGH_WATER_LIMIT)
        assert not flow.paused
        intake.add(b"y")
        assert flow.paused
        await intake.receive()
        await intake.receive()
        waiting = asyncio.ensure_future(intake.receive())
        await asyncio.sleep(0)
        assert not flow.paused
        intake.add(b"z")
        assert (await waiting)["body"] == b"z"

    asyncio.run(main())


def test_a_nudge_brings_an_empty_chunk():
    async def main():
        intake, cycle, _ = made()
        waiting = asyncio.ensure_future(intake.receive())
        await asyncio.sleep(0)
        cycle.message_event.set()
        assert await waiting == {"type": "http.request", "body": b"", "more_body": True}

    asyncio.run(main())


def test_who_expects_a_go_ahead_gets_it_once():
    async def main():
        intake, cycle, _ = made()
        cycle.waiting_for_100_continue = True
        intake.add(b"x")
        await intake.receive()
        intake.add(b"y")
        await intake.receive()
        assert cycle.transport == [b"HTTP/1.1 100 Continue\r\n\r\n"]

    asyncio.run(main())
