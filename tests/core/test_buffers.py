"""The pool: nothing that is in use is handed out again, by whichever view it is in use."""

import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from loss_scoring.core.buffers import SMALLEST, BufferPool

N = SMALLEST

VIEWS = {
    "array": lambda array: array,
    "slice": lambda array: array[10:20],
    "tensor": torch.from_numpy,
    "part of a tensor": lambda array: torch.from_numpy(array)[5:7],
    "dlpack": torch.from_dlpack,
    "memoryview": lambda array: memoryview(array)[3:5],
    "arrow": pa.array,
    "arrow buffer": lambda array: pa.py_buffer(array).slice(8, 8),
    "bytes": lambda array: np.frombuffer(memoryview(array), np.uint8)[1:],
}


def ordinary(size):
    return np.empty(size, np.uint8)


def of_torch(size):
    return torch.empty(size, dtype=torch.uint8).numpy()  # as pinned memory is


@pytest.mark.parametrize("allocate", [ordinary, of_torch])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_any_view_refers_to_is_not_handed_out_again(view, allocate):
    pool = BufferPool(1 << 26, allocate)
    first = pool.empty(N, np.float64)
    address = first.ctypes.data
    kept = view(first)
    del first
    others = [pool.empty(N, np.float64) for _ in range(3)]
    assert address not in [other.ctypes.data for other in others]
    del kept, others
    again = [pool.empty(N, np.float64) for _ in range(4)]
    assert address in [one.ctypes.data for one in again]


def test_shapes_types_and_small_or_huge_arrays():
    pool = BufferPool(1 << 22)
    made = pool.empty(N, np.float32)
    assert made.dtype == np.float32
    assert made.shape == (N,)
    assert made.flags.carray
    assert pool.retained_bytes == 4 * N
    assert pool.empty(10, np.float64).base is None
    assert len(pool.empty(1 << 20, np.float64)) == 1 << 20
    assert pool.retained_bytes == 4 * N


def test_what_is_retained_is_bounded_while_everything_is_in_use():
    pool = BufferPool(10 * SMALLEST)
    leases = []
    for i in range(30):
        lease = pool.empty(SMALLEST, np.uint8)
        lease[:] = i
        leases.append(lease)
        assert pool.retained_bytes <= 10 * SMALLEST
    assert [int(lease[-1]) for lease in leases] == list(range(30))
    assert len({lease.ctypes.data for lease in leases}) == 30


def test_a_full_pool_gives_up_what_is_free_and_keeps_what_is_in_use():
    made = []

    def counted(size):
        made.append(size)
        return ordinary(size)

    pool = BufferPool(4 * SMALLEST, counted)
    leases = [pool.empty(SMALLEST, np.uint8) for _ in range(4)]
    addresses = {lease.ctypes.data for lease in leases}
    beside = pool.empty(SMALLEST, np.uint8)
    assert beside.ctypes.data not in addresses
    assert made == [SMALLEST] * 4
    del leases[2:]
    assert pool.empty(SMALLEST, np.uint8).ctypes.data in addresses
    larger = pool.empty(3 * SMALLEST, np.uint8)  # which takes 4, more than is free
    assert made == [SMALLEST] * 4
    assert pool.retained_bytes == 4 * SMALLEST
    leases.clear()
    del larger
    assert len(pool.empty(3 * SMALLEST, np.uint8)) == 3 * SMALLEST
    assert made == [SMALLEST] * 4 + [4 * SMALLEST]
    assert pool.retained_bytes == 4 * SMALLEST


def test_a_far_larger_block_is_left_for_large_requests():
    pool = BufferPool(1 << 26)
    address = pool.empty(1 << 24, np.uint8).ctypes.data
    assert pool.empty(SMALLEST, np.uint8).ctypes.data != address
    assert pool.empty(1 << 23, np.uint8).ctypes.data == address


def test_a_block_that_rounds_up_over_the_bound_is_handed_out_all_the_same():
    pool = BufferPool(3 << 20)
    assert len(pool.empty((3 << 20) - 1, np.uint8)) == (3 << 20) - 1
    assert pool.retained_bytes == 0


def test_threads_never_share_a_lease():
    pool, wrong = BufferPool(1 << 24), []

    def work(tag):
        for _ in range(200):
            lease = pool.empty(SMALLEST, np.uint8)
            lease[::4096] = tag
            view = torch.from_numpy(lease)[: SMALLEST // 2]
            del lease
            if not bool((view[::4096] == tag).all()):
                wrong.append(tag)

    threads = [threading.Thread(target=work, args=(tag,)) for tag in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
