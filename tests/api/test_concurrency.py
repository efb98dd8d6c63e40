"""Many clients at once: each gets its own answer, and cancelled requests are not computed."""

import asyncio
import random
import time
from pathlib import Path

import httpx
import pyarrow as pa
from scrape import total
from test_errors import faulty, problem  # noqa: F401 - faulty is a fixture
from wire import ARROW, stream

BLOCKING = {"series": [{"prediction": [777.0], "target": [1.0]}]}


def request_of(tag: int, rng: random.Random) -> tuple[dict, list[float]]:
    """Make a request whose losses identify it."""
    series, want = [], []
    for k in range(rng.randint(1, 20)):
        length = rng.randint(1, 50)
        offset = tag + k / 64
        series.append(
            {"id": f"{tag}/{k}", "prediction": [offset] * length, "target": [0.0] * length}
        )
        want.append(offset)
    return {"series": series, "losses": ["mae"], "gradients": tag % 3 == 0}, want


async def post(client: httpx.AsyncClient, body: dict, *, arrow: bool) -> tuple[list, list]:
    if not arrow:
        answer = (await client.post("/score", json=body)).raise_for_status().json()
        return answer["ids"], answer["losses"]["mae"]
    query = {"losses": "mae", "gradients": str(body["gradients"]).lower()}
    content = stream(pa.Table.from_pylist(body["series"]))
    answer = await client.post(
        "/score", params=query, content=content, headers={"Content-Type": ARROW}
    )
    table = pa.ipc.open_stream(answer.raise_for_status().content).read_all()
    return table["id"].to_pylist(), table["mae"].to_pylist()


def test_64_concurrent_mixed_requests_get_their_own_answers(url):
    async def main():
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

            async def one(tag: int) -> None:
                rng = random.Random(tag)
                body, want = request_of(tag, rng)
                call = asyncio.create_task(post(client, body, arrow=tag % 2 == 0))
                if rng.random() < 0.2:  # some clients hang up
                    await asyncio.sleep(rng.random() * 0.01)
                    call.cancel()
                try:
                    ids, losses = await call
                except asyncio.CancelledError:
                    return
                assert ids == [f"{tag}/{k}" for k in range(len(want))]
                assert losses == want

            await asyncio.gather(*(one(tag) for tag in range(1, 641)))

    asyncio.run(main())


async def eventually(condition) -> None:
    deadline = time.monotonic() + 60
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def blocked(gate: Path) -> bool:
    """Tell whether the blocking request is on the device."""
    return gate.with_name("blocked").exists()


async def queued(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    (line,) = [x for x in text.splitlines() if x.startswith("loss_scoring_queued_elements ")]
    return float(line.split()[1])


def test_a_cancelled_request_is_never_computed(faulty):  # noqa: F811
    base, gate, ledger = faulty

    async def main():
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:

            async def waiting(n: int) -> bool:
                return await queued(client) == n

            first = asyncio.create_task(client.post("/score", json=BLOCKING))
            await eventually(lambda: blocked(gate))
            gone, stays = (
                asyncio.create_task(
                    client.post("/score", json={"series": [{"prediction": [tag], "target": [0.0]}]})
                )
                for tag in (11.0, 12.0)
            )
            await eventually(lambda: waiting(2))
            gone.cancel()
            await eventually(lambda: waiting(1))
            gate.unlink()
            assert (await stays).json()["losses"]["mae"] == [12.0]
            assert (await first).status_code == 200

    asyncio.run(main())
    computed = ledger.read_text().split()
    assert "12.0" in computed
    assert "11.0" not in computed


def test_a_full_queue_refuses_the_client_that_filled_it_and_accepts_another(faulty):  # noqa: F811
    base, gate, ledger = faulty

    def request(first: float, elements: int) -> dict:
        return {"series": [{"prediction": [first] * elements, "target": [0.0] * elements}]}

    async def main():
        def client(source: str) -> httpx.AsyncClient:
            transport = httpx.AsyncHTTPTransport(local_address=source)
            return httpx.AsyncClient(base_url=base, timeout=60, transport=transport)

        async with client("127.0.0.2") as greedy, client("127.0.0.3") as newcomer:

            def send(client: httpx.AsyncClient, body: dict) -> asyncio.Task:
                return asyncio.create_task(client.post("/score", json=body))

            async def waiting(n: int) -> bool:
                return await queued(newcomer) == n

            sent = [send(greedy, BLOCKING)]
            await eventually(lambda: blocked(gate))
            sent.append(send(greedy, request(1.0, 100)))
            await eventually(lambda: waiting(100))
            gone = send(greedy, request(2.0, 50))
            await eventually(lambda: waiting(150))

            refused = await greedy.post("/score", json=request(3.0, 50))
            assert problem(refused, 429)["retryable"]
            assert int(refused.headers["retry-after"]) >= 1
            refused = await newcomer.post("/score", json=request(4.0, 60))
            assert problem(refused, 503)["retryable"]
            assert int(refused.headers["retry-after"]) >= 1
            assert await waiting(150)

            gone.cancel()
            await eventually(lambda: waiting(100))
            sent.append(send(greedy, request(5.0, 50)))
            await eventually(lambda: waiting(150))
            sent.append(send(newcomer, request(6.0, 30)))
            await eventually(lambda: waiting(180))
            text = (await newcomer.get("/metrics")).text
            for reason in ("queue-share", "queue-full"):
                assert total(text, "loss_scoring_refusals_total", reason=reason) == 1
            gate.unlink()
            assert [(await answer).status_code for answer in sent] == [200] * 4
            again = await asyncio.gather(*[send(greedy, request(7.0, 80)) for _ in range(2)])
            assert [answer.status_code for answer in again] == [200] * 2, "all was released"

    asyncio.run(main())
    assert not {"2.0", "3.0", "4.0"} & set(ledger.read_text().split())
