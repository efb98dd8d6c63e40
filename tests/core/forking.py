"""Forks while other threads score and compile; prints what children made of it. For test_forked_processes.py."""

import multiprocessing
import sys
import threading

import numpy as np
import pyarrow as pa
import torch
from numba.core.compiler_lock import global_compiler_lock

from loss_scoring.core.buffers import BufferPool
from loss_scoring.core.kernels.fused_cpu import SHARE, fused_cpu_kernel
from loss_scoring.core.table import TableError, score_table

FORK = multiprocessing.get_context("fork")
ROWS = 3 * SHARE
rng = np.random.default_rng(1)
TABLE = pa.table(
    {
        "unique_id": rng.permutation(ROWS) // 8,
        "y": rng.normal(10, 2, ROWS),
        "Naive": rng.normal(10, 2, ROWS),
        "Theta": rng.normal(10, 2, ROWS),
    }
)
GAP = TABLE.set_column(1, "y", pa.array(np.where(np.arange(ROWS) == 77, np.nan, 1.0)))


def answer(table=TABLE):
    try:
        return score_table(table, group_by=["unique_id"], gradients=True)
    except TableError as error:
        return str(error)


def in_child(function):
    """Run in a forked child; a child that hangs is an error, and ended."""
    child = FORK.Process(target=lambda: sys.exit(0 if function() else 1))
    child.start()
    child.join(60)
    if child.exitcode is None:
        child.kill()
        sys.exit(f"{function.__name__} hangs in a child")
    assert child.exitcode == 0, function.__name__


fused_cpu_kernel.threads = 2  # whatever this machine has
fused_cpu_kernel.renew()
EXPECTED, REFUSED = answer(), answer(GAP)
assert "Naive" in str(EXPECTED["model"][0])
assert torch.ones(10**6).add(1).sum() == 2 * 10**6  # its threads run, which no child has


def scores_as_its_parent():
    return answer().equals(EXPECTED) and answer(GAP) == REFUSED


in_child(scores_as_its_parent)
stop = threading.Event()


def work():
    while not stop.is_set():
        answer()


busy = [threading.Thread(target=work) for _ in range(2)]
for thread in busy:
    thread.start()
for _ in range(6):
    in_child(scores_as_its_parent)
stop.set()
for thread in busy:
    thread.join()

pool, used = BufferPool(1 << 24), []
used.append(pool.empty(1 << 20, np.uint8))  # by the parent: in the child nobody will give it back


def gets_a_buffer():
    return pool.retained_bytes == 0 and pool.empty(1 << 20, np.uint8).size == 1 << 20


holding, enough = threading.Event(), threading.Event()


def hold():
    with pool._lock:
        holding.set()
        enough.wait()


holder = threading.Thread(target=hold)
holder.start()
holding.wait()
in_child(gets_a_buffer)
enough.set()
holder.join()

compiling = threading.Event()


def compile_for_a_while():
    with global_compiler_lock:
        compiling.set()
        enough.wait(0.3)


def compiles_in_a_thread():
    found = []

    def take():
        with global_compiler_lock:
            found.append(True)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(30)
    return bool(found)


enough.clear()
compiler = threading.Thread(target=compile_for_a_while)
compiler.start()
compiling.wait()
in_child(compiles_in_a_thread)
compiler.join()
print("all children are done")
