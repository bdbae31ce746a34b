"""Many threads, one program: every call in flight has its own memory, every session its own turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from forgec.runtime import LiveWeights, Program
from tests.runtime.examples import MLP_WEIGHTS, attention, counter, dynamic_mlp, weights

THREADS = 8


def in_threads(body: Callable[[int], None]) -> None:
    """Runs ``body(0 … 7)`` at once and raises what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def guarded(index: int) -> None:
        try:
            start.wait()
            body(index)
        except BaseException as reason:
            failures.append(reason)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_calls_do_not_share_memory() -> None:
    w = weights(*MLP_WEIGHTS)
    p = Program(dynamic_mlp(), LiveWeights(w), threads=1)

    def body(index: int) -> None:
        generator = torch.Generator().manual_seed(index)
        for round_ in range(60):
            x = torch.randn((index * 7 + round_) % 64 + 1, 8, generator=generator)
            expected = torch.relu(x @ w["up"]) @ w["down"]
            torch.testing.assert_close(p(x)["y"], expected, rtol=1e-5, atol=1e-5)

    in_threads(body)
    assert len(p._lanes) <= THREADS


def test_externals_do_not_mix() -> None:
    p = Program(attention(), LiveWeights({}), threads=1)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 1, 2, 5, 4, generator=generator) for _ in range(THREADS)]
    expected = [p(*qkv)[0] for qkv in inputs]

    def body(index: int) -> None:
        for _ in range(100):
            assert torch.equal(p(*inputs[index])[0], expected[index])

    in_threads(body)


def test_one_session_serves_one_call_at_a_time() -> None:
    p = Program(counter(), LiveWeights({}), threads=1)
    shared, own = p.session(), [p.session() for _ in range(THREADS)]

    def body(index: int) -> None:
        for _ in range(100):
            shared(torch.tensor(1.0))
            own[index](torch.tensor(float(index)))
            p(torch.tensor(1.0))

    in_threads(body)
    assert shared(torch.tensor(0.0)).item() == 100 * THREADS
    assert p(torch.tensor(0.0)).item() == 100 * THREADS
    for index, session in enumerate(own):
        assert session(torch.tensor(0.0)).item() == 100 * index
