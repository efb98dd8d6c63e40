"""Bodies of Arrow that are small once compressed, and cost far more than they weigh.

``names``: what an answer repeats, once for each series and model. ``pieces``: batches, columns,
buffers and metadata without end. ``dictionaries``: some that are validated with each of many
batches, as many at once as there are threads, and more. Each body is served or refused with 4xx
within the memory of a request; meanwhile somebody else is answered; afterwards the processor rests.

SLACK is what allocators keep of what was used, and the memory of the interpreter.
"""

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from finding import Finding, at_least, at_most
from instance import MEBI, Instance, instance
from traffic import ARROW, Connection, ask_once, play, post, tagged

SLACK = 128 * MEBI
LONG = "losses=mae&group_columns=k"


def stream(batch: pa.RecordBatch, count: int = 1) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(count):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def one_to_one(series: int, **more: pa.Array) -> pa.RecordBatch:
    ones = np.ones(series, np.float32)
    return pa.record_batch({"k": np.arange(series, dtype=np.int32), "y": ones, "m": ones, **more})


def names() -> dict[str, bytes]:
    ones = np.ones(150_000, np.float32)
    keys = pa.array(["\x01" * 500]).dictionary_encode().take(pa.array(np.zeros(20_000, np.int8)))
    models = {f"{n}" + "\x02" * 480: np.ones(20_000, np.float32) for n in range(20)}
    left_out = {f"{n}" + "\x03" * 400 + "-lo-90": pa.nulls(9) for n in range(4000)}
    ids = {"id": keys, **dict.fromkeys(("prediction", "target"), pa.array([[1.0]] * 20_000))}
    return {
        "a long name of a model": stream(one_to_one(600, **{"m" * 1_000_000: ones[:600]})),
        "a name of a model that many series have": stream(one_to_one(150_000, **{"m" * 500: ones})),
        "keys that many models have": stream(one_to_one(20_000, **models).set_column(0, "k", keys)),
        "columns that are left out": stream(one_to_one(9, **left_out)),
        "ids that are one entry": stream(pa.record_batch(ids)),
    }


def pieces() -> dict[str, bytes]:
    one = one_to_one(1)
    wide = one_to_one(1, **{str(n): [1.0] for n in range(3000)})
    noted = one.replace_schema_metadata({str(n): "" for n in range(1_000_000)})
    many = {str(n): pa.nulls(1) for n in range(100_000)}
    return {
        "batches": stream(one, 400_000),
        "some batches": stream(one, 100_000),
        "columns": stream(wide, 1_000),
        "metadata": stream(noted),
        "fields": stream(one_to_one(1, **many)),
    }


def dictionaries() -> dict[str, bytes]:
    large = pa.array([f"{n:08d}" + "x" * 492 for n in range(60_000)])
    numbers = pa.array(np.arange(4_000_000))
    tiny, index = pa.array(["s"]).dictionary_encode(), pa.array([0], pa.int32())
    entries = {"a large dictionary, then a tiny one": large, "numbers, then a tiny one": numbers}
    return {
        name: stream(
            one_to_one(1, l=tiny).set_column(0, "k", pa.DictionaryArray.from_arrays(index, values)),
            10_000,
        )
        for name, values in entries.items()
    }


KINDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "names": names,
    "pieces": pieces,
    "dictionaries": dictionaries,
}


async def _crowd(running: Instance, bodies: dict[str, bytes], at_once: int) -> dict[str, float]:
    seen: Counter[str] = Counter()
    waits = [0.0]
    ended = asyncio.Event()

    async def somebody_else() -> None:
        connection = await Connection.open(running, "127.0.1.2")
        while not ended.is_set():
            began = time.perf_counter()
            seen[f"else {(await connection.ask(post(tagged(1.0)))).status}"] += 1
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)

    async def client(name: str, body: bytes) -> None:
        query = "losses=mae" if name.startswith("ids") else LONG
        connection = await Connection.open(running, "127.0.1.1")
        for accept in (ARROW, "application/json"):
            data = post(body, ARROW, query, Content_Encoding="gzip", Accept=accept)
            status = (await connection.ask(data)).status
            print(f"{name}: {len(body)} bytes, {accept}: {status}")
            seen[str(status)] += 1
        connection.hang_up()

    other = asyncio.create_task(somebody_else())
    for name, body in bodies.items():
        await asyncio.gather(*(client(name, body) for _ in range(at_once)))
    ended.set()
    await other
    used = running.cpu_seconds
    await asyncio.sleep(1)
    afterwards = await ask_once(running, post(tagged(1.0)))
    print(dict(seen))
    allowed = {"200", "413", "422", "429", "503", "else 200"}
    return {
        "odd": sum(count for status, count in seen.items() if status not in allowed),
        "wait": max(waits),
        "burning": running.cpu_seconds - used,
        "afterwards": afterwards.status == 200,
    }


def run(kind: str = "names", at_once: int = 1, room: int = 300 * MEBI) -> list[Finding]:
    bodies = {name: gzip.compress(body, 1) for name, body in KINDS[kind]().items()}
    with instance(max_open_bytes=room) as running:
        running.reset_peak()
        before = running.resident_bytes
        seen = play(_crowd(running, bodies, at_once))
        grown = running.peak_bytes - before
        alive = running.alive
    largest = max(map(len, bodies.values()))
    return [
        at_most(
            f"growth of the peak by bodies of {largest / 1024:,.0f} KiB or less",
            grown / MEBI,
            (room + SLACK) / MEBI,
            "MiB",
        ),
        at_most("answers that are neither 200 nor a refusal", seen["odd"] + (not alive), 0),
        at_most("longest wait of somebody else", seen["wait"], 1, "s"),
        at_most("processor time in the second afterwards", seen["burning"], 0.5, "s"),
        at_least("served afterwards", seen["afterwards"], 1),
    ]
