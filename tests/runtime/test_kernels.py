"""Launches of machine code: what they get, when addresses change, what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.kernel_table import NativeCode
from forgec.runtime.plan import EntryRef, Launch, Plan, Reg, TensorSpec, from_json, to_json
from forgec.runtime.symbolic import floordiv, symbol
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, s0
from tests.runtime.native import CHECKED, gather, native, scaled


def program(plan: Plan, weights: dict[str, Any] | None = None, *kernels: str) -> Program:
    names = kernels or tuple({launch.op.removeprefix("kernel::"): None for e in plan.entries for launch in e.launches
                              if launch.op.startswith("kernel::")})  # fmt: skip
    plan = from_json(to_json(plan))
    return Program(plan, LiveWeights(weights or {}), plan_is_checked=True, kernels=native(*names))


def test_several_shapes_over_one_arena() -> None:
    p = program(scaled())
    for rows in (3, 5, 64, 1, 3, 64, 17, 5):
        x, s = torch.randn(rows, 6), torch.randn(rows)
        assert torch.equal(p(x, s), x * 2 * s[:, None] * 2)


def test_frames_follow_an_arena_that_grows() -> None:
    """The arena of the first frame is freed when the second one needs a larger one."""
    p = program(scaled(4096))
    x, s = torch.randn(64, 4096), torch.randn(64)
    kept = []
    for rows in (1, 2, 64, 2, 1):
        assert torch.equal(p(x[:rows], s[:rows]), x[:rows] * 4 * s[:rows, None])
        kept.append(torch.full((rows, 4096), float("nan")))  # takes memory that was freed


def test_no_programs_no_call() -> None:
    plan = scaled()
    symbols = (replace(SEQ, minimum=0),)
    p = program(replace(plan, symbols=symbols))
    assert p(torch.zeros(0, 6), torch.zeros(0)).shape == (0, 6)


def test_inputs_that_lie_otherwise() -> None:
    p = program(scaled())
    x, s = torch.randn(6, 9).t()[:7], torch.randn(14)[::2]
    assert torch.equal(p(x, s), x * 4 * s[:, None])
    base = torch.randn(100)
    x = base[3:45].view(7, 6)  # an offset in its storage
    assert torch.equal(p(x, s), x * 4 * s[:, None])
    assert torch.equal(torch.from_numpy(p(x.numpy(), s.numpy())), x * 4 * s[:, None])


def test_params_states_views_and_results_of_operations() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    w = b.param("w", f32(2, 4))
    total = b.state("total", f32(8))
    second = b.view("second", f32(4), w, 4)
    high = b.view("high", f32(4), total, 4)
    made = b.external("made", f32(4), 0, 2)
    tail = b.view("tail", f32(2), made, 2)
    y = b.output("y", f32(10))
    parts = [b.view(f"part{i}", f32(size), y, at) for i, (at, size) in enumerate([(0, 4), (4, 4), (8, 2)])]
    b.call("aten::relu", x, results=(made,))
    b.kernel("double_it", tail, parts[2], grid=(2,), writes=(parts[2],))
    b.kernel("double_it", second, parts[0], grid=(4,), writes=(parts[0],))
    b.kernel("double_it", high, parts[1], grid=(4,), writes=(parts[1],))
    b.inplace("aten::add_.Tensor", high, x)
    plan = plan_of(b.build((y, parts[2])))
    weight = torch.randn(2, 4)
    p = program(plan, {"w": weight})
    before = torch.zeros(4)
    for _ in range(4):
        x = torch.randn(4)
        whole, last = p(x)
        expected = torch.cat([weight[1] * 2, before * 2, torch.relu(x)[2:] * 2])
        assert torch.equal(whole, expected)
        assert torch.equal(last, expected[8:])
        before = before + x
    first, second_session = p.session(), p.session()
    one = torch.ones(4)
    first(one)
    assert torch.equal(first(one)[0][4:8], torch.full((4,), 2.0))
    assert torch.equal(second_session(one)[0][4:8], torch.zeros(4))


def test_a_kernel_updates_an_input() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(8), inout=True)
    b.kernel("double_it", x, x, grid=(8,), writes=(x,))
    p = program(plan_of(b.build(())))
    x = torch.arange(16.0)
    p(x[:8])
    assert torch.equal(x[:8], torch.arange(8.0) * 2)
    p(x[::2])  # lies otherwise: copied, and copied back
    assert torch.equal(x[::2], torch.cat([torch.arange(0, 8, 2) * 4.0, torch.arange(8.0, 16.0, 2) * 2]))


def test_wider_views_of_unaligned_bytes() -> None:
    b = EntryBuilder()
    raw = b.input("raw", TensorSpec.contiguous("ui8", (32,)))
    numbers = b.view("numbers", f32(8), raw)
    y = b.output("y", f32(8))
    b.kernel("double_it", numbers, y, grid=(8,), writes=(y,))
    p = program(plan_of(b.build(y)))
    values = torch.randn(8)
    for shift in (0, 1, 4, 7):
        memory = torch.zeros(64, dtype=torch.uint8)
        memory[shift : shift + 32] = values.view(torch.uint8)
        assert torch.equal(p(memory[shift : shift + 32]), values * 2)


def test_results_that_are_negated_when_they_are_read() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    made = b.external("made", f32(4), 0, 2)
    y = b.output("y", f32(4))
    b.call("forgec_test_kernels::lazily_negated", x, results=(made,))
    b.kernel("double_it", made, y, grid=(4,), writes=(y,))
    with torch.library._scoped_library("forgec_test_kernels", "FRAGMENT") as library:
        library.define("lazily_negated(Tensor x) -> Tensor")
        library.impl("lazily_negated", lambda x: torch.ops.aten._neg_view(x.clone()), "CPU")
        p = program(plan_of(b.build(y)))
        x = torch.randn(4)
        assert torch.equal(p(x), x * -2)
        w = torch.ops.aten._neg_view(torch.randn(4))
        b = EntryBuilder()
        b.param("w", f32(4))
        y = b.output("y", f32(4))
        b.kernel("double_it", b["w"], y, grid=(4,), writes=(y,))
        assert torch.equal(program(plan_of(b.build(y)), {"w": w})(), w * 2)


def test_an_output_that_nobody_gets() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(1 << 16))
    unused = b.output("unused", f32(1 << 16))
    y = b.output("y", f32(1 << 16))
    b.kernel("double_it", x, unused, grid=(1 << 16,), writes=(unused,))
    b.kernel("double_it", unused, y, grid=(1 << 16,), writes=(y,))
    p = program(plan_of(b.build(y)))
    for _ in range(3):
        x = torch.randn(1 << 16)
        assert torch.equal(p(x), x * 4)


def test_copies_with_memcpy() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(s0))
    y = b.output("y", f32(s0))
    b.kernel("copy_bytes", x, y, s0 * 4, grid=(1,), writes=(y,))
    p = program(plan_of(b.build(y), symbols=(SEQ,)))
    for length in (1, 3, 4, 37, 64):
        x = torch.randn(length)
        assert torch.equal(p(x), x)


def test_a_check_that_fails() -> None:
    table = torch.randn(10)
    p = program(gather(), {"table": table})
    index = torch.tensor([3, 9, 0])
    for _ in range(2):  # the first run of a frame goes another way than the others
        assert torch.equal(p(index), table[index])
        for wrong in (10, -1):
            with pytest.raises(ForgeError) as caught:
                p(torch.tensor([1, wrong, 2]))
            assert caught.value.code == "FORGE-R014"
            assert caught.value.diagnostics[0].message == CHECKED
            place = caught.value.diagnostics[0].location
            assert place is not None
            assert str(place) == "model.py:3 in Model.forward (layers.0)"
            assert "kernel 'take'" in str(caught.value)
    assert torch.equal(p(index), table[index])


def test_private_entries_call_kernels() -> None:
    inner = EntryBuilder("inner")
    x = inner.input("x", f32(s0))
    t = inner.buffer("t", f32(s0), None, 0, 2)
    y = inner.output("y", f32(s0))
    inner.kernel("double_it", x, t, grid=(s0,), writes=(t,))
    inner.kernel("double_it", t, y, grid=(s0,), writes=(y,))
    b = EntryBuilder()
    x = b.input("x", f32(s0))
    result = b.external("result", f32(s0), 0, 2)
    y = b.output("y", f32(s0))
    b.call("forge::call", EntryRef("inner"), (x,), results=(result,))
    b.kernel("double_it", result, y, grid=(s0,), writes=(y,))
    private = replace(inner.build((y,)), private=True, given=("s0",))
    p = program(plan_of(b.build(y), private, symbols=(SEQ,)))
    for length in (4, 9, 4, 64):
        x = torch.randn(length)
        assert torch.equal(p(x), x * 8)


def test_threads_have_slots_of_their_own() -> None:
    p = program(scaled())
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for step in range(100):
            rows = 1 + (seed + step) % 9
            x, s = torch.randn(rows, 6, generator=generator), torch.randn(rows, generator=generator)
            if not torch.equal(p(x, s), x * 2 * s[:, None] * 2):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_launch_costs_at_most_two_microseconds() -> None:
    count = 1000
    b = EntryBuilder()
    last = b.input("x", f32(8))
    for i in range(count):
        t = b.buffer(f"t{i}", f32(8), 64 * (i % 2), i, i + 2 if i < count - 1 else count)
        b.kernel("double_it", last, t, grid=(1,), writes=(t,))
        last = t
    p = program(plan_of(b.build((), arena=128)))
    x = torch.zeros(8)
    p(x)
    seconds: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        p(x)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) / count < 2e-6


# What is refused

BREACHES: list[tuple[str, Callable[[Launch], Launch]]] = [
    ("takes tensors, then extents", lambda launch: replace(launch, args=(*launch.args[:3], 2.5))),
    ("takes tensors, then extents", lambda launch: replace(launch, args=(*launch.args[:3], -1))),
    ("takes tensors, then extents", lambda launch: replace(launch, args=(*launch.args[:3], True))),
    ("takes tensors, then extents", lambda launch: replace(launch, args=(*launch.args[:3], None))),
    ("takes tensors, then extents", lambda launch: replace(launch, args=(4, *launch.args[:3]))),
    ("takes tensors, then extents", lambda launch: replace(launch, args=(tuple(launch.args[:3]), 6))),
    ("one keyword argument, grid", lambda launch: replace(launch, kwargs=())),
    ("one keyword argument, grid", lambda launch: replace(launch, kwargs=(*launch.kwargs, ("out", Reg(0))))),
    ("is a list of extents", lambda launch: replace(launch, kwargs=(("grid", 4),))),
    ("is a list of extents", lambda launch: replace(launch, kwargs=(("grid", (4, Reg(0))),))),
    ("names no kernel", lambda launch: replace(launch, op="kernel::a.b")),
    ("returns nothing", lambda launch: replace(launch, defines=("s0",))),
    ("symbol 's9' is not declared", lambda launch: replace(launch, kwargs=(("grid", (symbol("s9"),)),))),
    ("must not be written", lambda launch: replace(launch, args=(Reg(0), *launch.args[1:]), writes=(0,))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "change"), BREACHES)
def test_malformed_launches(reason: str, change: Callable[[Launch], Launch]) -> None:
    plan = scaled()
    entry = plan.entries[0]
    launches = (entry.launches[0], change(entry.launches[1]), entry.launches[2])
    broken = replace(plan, entries=(replace(entry, launches=launches),))
    with pytest.raises(ForgeError) as caught:
        from_json(to_json(broken))
    assert caught.value.code == "FORGE-A004"
    assert reason in str(caught.value)


def test_a_kernel_on_another_device() -> None:
    plan = scaled()
    entry = plan.entries[0]
    registers = tuple(replace(register, device="meta") for register in entry.registers)
    with pytest.raises(ForgeError, match="on a device that kernel::double_it does not reach"):
        from_json(to_json(replace(plan, entries=(replace(entry, registers=registers),))))


def test_an_extent_that_divides_by_zero() -> None:
    plan = scaled()
    entry = plan.entries[0]
    for grid in ((floordiv(12, s0 - 3),), (s0 - 4,), (s0 * (1 << 60), 6)):
        launch = replace(entry.launches[2], kwargs=(("grid", grid),))
        p = program(replace(plan, entries=(replace(entry, launches=(*entry.launches[:2], launch)),)))
        with pytest.raises(ForgeError) as caught:
            p(torch.zeros(3, 6), torch.zeros(3))
        assert caught.value.code == "FORGE-A004"


def test_kernels_that_do_not_fit_the_plan() -> None:
    plan = scaled()
    with pytest.raises(ForgeError, match="launch 1 of entry 'main' calls kernel 'scale_rows', which is not there"):
        program(plan, None, "double_it")
    with pytest.raises(ForgeError, match="calls kernel 'double_it', which is not there"):
        Program(plan, LiveWeights({}))
    good = native("double_it", "scale_rows")
    for changes in ({"parameters": 2}, {"symbols": 0}):
        kernels = (good.table.kernels[0], replace(good.table.kernels[1], **changes))
        other = NativeCode(replace(good.table, kernels=kernels), good.code)
        with pytest.raises(ForgeError, match="gives kernel 'scale_rows' 3 and 1, it takes") as caught:
            Program(plan, LiveWeights({}), kernels=other)
        assert caught.value.code == "FORGE-A004"


def test_a_code_that_no_check_has() -> None:
    found = native("take")
    kernels = (replace(found.table.kernels[0], checks=()),)
    p = Program(
        gather(),
        LiveWeights({"table": torch.zeros(10)}),
        kernels=NativeCode(replace(found.table, kernels=kernels), found.code),
    )
    with pytest.raises(ForgeError, match="kernel 'take' returned 1, and has 0 checks") as caught:
        p(torch.tensor([11]))
    assert caught.value.code == "FORGE-X001"
