"""20,000 damaged Arrow streams: no crash, no 5xx, bounded memory, and 200 only with a valid answer.

Bit flips, extreme numbers in the metadata, truncation, splices, forged offsets, and zstd and lz4
bombs; a quarter of them in the long form. A crash of the process shows as lost connections and a
dead process; without ``validate(full=True)`` the forged offsets crash it, without the sum of
decompressed sizes the bombs take gigabytes.
"""

import barrage
import numpy as np
import pyarrow as pa
from finding import Finding
from instance import MEBI, Instance, instance
from mutants import EXTREMES, mutants
from traffic import ARROW
from wire import stream

BUDGET = 64 * MEBI
LIMITS = {"max_body_bytes": BUDGET // 2, "max_open_bytes": BUDGET}


def table(column: pa.Array, **more: pa.Array) -> pa.Table:
    return pa.table({**more, "prediction": column, "target": column})


def originals() -> list[bytes]:
    lists = pa.array([[1.0, 2.0], [3.0], [4.0, None, 6.0]], pa.list_(pa.float64()))
    rows = pa.array([[[1, 2]], [[3, 4], [5, 6]]], pa.large_list(pa.list_(pa.float32(), 2)))
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    text = pa.array(["a", "b", "a longer name than fits in a view"])
    return [
        stream(table(lists, id=text)),
        stream(table(lists, id=text.dictionary_encode())),
        stream(table(lists, id=text.dictionary_encode()), compression="zstd"),
        stream(table(lists, id=text.cast(pa.string_view())), compression="lz4"),
        stream(table(rows, id=pa.array([1, 2]))),
        stream(pa.concat_tables([table(fixed), table(fixed)])),
    ]


def long_originals() -> list[bytes]:
    text = pa.array(["a", "b", "a longer name than fits in a view", "a", "b"])
    when = pa.array([1, 1, 2, 1, 2], pa.timestamp("ns", "UTC"))
    numbers = pa.array([1.0, 2.0, None, 4.0, 5.0], pa.float32())
    columns = {"cutoff": when, "y": numbers, "A": numbers, "B": pa.array([1.0, 0, 3, 4, 5])}
    return [
        stream(pa.table({"id": text, **columns})),
        stream(pa.table({"id": text.dictionary_encode(), **columns})),
        stream(pa.table({"id": text.dictionary_encode(), **columns}), compression="zstd"),
        stream(pa.table({"id": text.cast(pa.string_view()), **columns}), compression="lz4"),
        stream(pa.concat_tables([pa.table({"id": pa.array(range(5)), **columns})] * 2)),
    ]


def forged(count: int) -> list[bytes]:
    """Whole streams whose offsets lie."""
    rng = np.random.default_rng(7)
    values = pa.array(np.ones(64))
    made = []
    for n in range(count):
        kind, array = [(np.int32, pa.ListArray), (np.int64, pa.LargeListArray)][n % 2]
        offsets = np.sort(rng.choice(65, 9, replace=False)).astype(kind)
        offsets[0], offsets[-1] = 0, 64
        whole = stream(table(array.from_arrays(pa.array(offsets), values)))
        limit = np.iinfo(kind)
        lies = offsets.copy()
        for _ in range(rng.integers(1, 4)):
            lie = np.clip(EXTREMES[rng.integers(len(EXTREMES))], limit.min, limit.max)
            lies[rng.integers(9)] = lie
        made.append(whole.replace(offsets.tobytes(), lies.tobytes(), rng.integers(1, 3)))
    return made


def bombs() -> list[bytes]:
    made = []
    for compression in ("zstd", "lz4"):
        for elements in (1 << 21, 1 << 24, 1 << 26):  # 16 to 512 MiB a side
            zeros = pa.array(np.zeros(elements))
            column = pa.ListArray.from_arrays([0, elements], zeros)
            made.append(stream(table(column), compression=compression))
    return made


def is_valid(_body: bytes, answer) -> bool:
    read = pa.ipc.open_stream(answer.body).read_all()
    read.validate(full=True)
    return {"id", "length", "mae", "mae_gradient"} <= set(read.column_names)


def is_valid_long(_body: bytes, answer) -> bool:
    read = pa.ipc.open_stream(answer.body).read_all()
    read.validate(full=True)
    models = read["model"].to_pylist()
    names = list(dict.fromkeys(models))
    columns = {"id", "cutoff", "length", "mae", "mae_gradient"}
    together = models == names * (len(models) // len(names or [0]))
    return together and columns <= set(read.column_names)


def findings(running: Instance, count: int) -> list[Finding]:
    """Judge a service that runs with LIMITS."""
    query = "losses=mae&gradients=true&missing=skip"
    long, offsets = count // 4, count // 10
    return [
        *barrage.findings(
            running,
            barrage.Barrage(ARROW, query, is_valid),
            originals() * 10,
            [
                (mutants(originals(), count - long - offsets, 11), 8),
                (forged(offsets), 8),
                (bombs() * 4, 2),
            ],
            what=f"{count - long:,} damaged Arrow streams, bombs included",
            invalid="answers that are neither a problem nor a valid table",
            most_mebi=2 * BUDGET / MEBI,
        ),
        *barrage.findings(
            running,
            barrage.Barrage(ARROW, f"{query}&group_columns=id,cutoff", is_valid_long),
            long_originals() * 10,
            [(mutants(long_originals(), long, 13), 8)],
            what=f"{long:,} damaged Arrow streams in the long form",
            invalid="answers that are neither a problem nor a valid table",
            most_mebi=2 * BUDGET / MEBI,
        ),
    ]


def run(count: int = 20_000) -> list[Finding]:
    with instance(**LIMITS) as running:
        return findings(running, count)
