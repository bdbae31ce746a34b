"""Copies as machine code: any layouts, within the row of the kernels around them, and states whose addresses stay."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.code_image import CodeImage
from forgec.runtime.native_copy import PIECE_BYTES, copy_of, native_launches
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, s0
from tests.runtime.native import native

FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(scope="module")
def image() -> CodeImage:
    return CodeImage(native("double_it"))


def copied(image: CodeImage, to: torch.Tensor, source: torch.Tensor) -> None:
    """Copies by two calls, each with a part of the programs."""
    copy = copy_of(to.element_size(), (to.shape, to.stride()), (source.shape, source.stride()))
    slots = (ctypes.c_int64 * (2 + len(copy.numbers)))(to.data_ptr(), source.data_ptr(), *copy.numbers)
    call, middle = FUNCTION(image.driver().copy), copy.programs // 2
    assert call(None, ctypes.addressof(slots), middle, copy.programs) == 0
    assert call(None, ctypes.addressof(slots), 0, middle) == 0


def arranged(choose: random.Random, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor with its axes in any order in memory, some with gaps."""
    order = choose.sample(range(len(shape)), len(shape))
    gaps = [choose.choice([1, 1, 2]) for _ in order]
    base = torch.randint(-99, 99, [shape[axis] * gap for axis, gap in zip(order, gaps, strict=True)]).to(dtype)
    return base[tuple(slice(None, None, gap) for gap in gaps)].permute(
        [order.index(axis) for axis in range(len(shape))]
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.int32, torch.float64, torch.complex128])
def test_random_layouts(image: CodeImage, dtype: torch.dtype) -> None:
    choose = random.Random(0)
    for _ in range(200):
        shape = [choose.choice([1, 2, 3, 5, 16]) for _ in range(choose.randrange(5))]
        to, source = arranged(choose, shape, dtype), arranged(choose, shape, dtype)
        if shape and choose.random() < 0.3:
            axis = choose.randrange(len(shape))
            source = source.narrow(axis, 0, 1)
            source = source[0] if axis == 0 and choose.random() < 0.5 else source
        around = to._base if to._base is not None else to
        before, expected = around.clone(), around.clone()
        expected.as_strided(to.shape, to.stride()).copy_(source)
        copied(image, to, source)
        assert torch.equal(around, expected)
        assert torch.equal(before[around == before], around[around == before])


def test_long_rows_are_several_programs(image: CodeImage) -> None:
    source = torch.arange(3 * PIECE_BYTES // 8 + 5)
    copy = copy_of(8, (source.shape, (1,)), (source.shape, (1,)))
    assert copy.programs == 4
    to = torch.zeros_like(source)
    copied(image, to, source)
    assert torch.equal(to, source)


def test_nothing_is_no_program() -> None:
    assert copy_of(4, ((3, 0, 2), (0, 2, 1)), ((3, 0, 2), (0, 2, 1))).programs == 0


@pytest.mark.parametrize("given", [(3,), (2, 3), (1, 1, 4)])
def test_shapes_that_do_not_fit(given: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be copied into"):
        copy_of(4, ((2, 4), (4, 1)), (given, (1,) * len(given)))


def between(source_extent: Any = s0) -> Any:
    """y = double(copy of double(x)); the copy reads ``source_extent`` rows."""
    b = EntryBuilder()
    x = b.input("x", f32(s0, 6))
    t = b.buffer("t", f32(s0, 6), None, 0, 2)
    u = b.buffer("u", f32(s0, 6), None, 1, 3)
    y = b.output("y", f32(s0, 6))
    part = t if source_extent is s0 else b.view("part", f32(source_extent, 6), t)
    b.kernel("double_it", x, t, grid=(s0, 6), writes=(t,))
    b.inplace("aten::copy_", u, part)
    b.kernel("double_it", u, y, grid=(s0, 6), writes=(y,))
    return plan_of(b.build(y), symbols=(SEQ,))


def test_a_copy_does_not_part_the_kernels_around_it() -> None:
    p = Program(between(), LiveWeights({}), kernels=native("double_it"))
    assert not p.needs_torch
    for rows in (3, 17, 64, 3):
        x = torch.randn(rows, 6)
        assert torch.equal(p(x), x * 4)
        assert torch.equal(torch.from_numpy(p(x.numpy())), x * 4)
    for lane in p._lanes:
        assert {len(frame.steps) for frame in lane.frames.values()} == {1}


def test_shapes_that_do_not_fit_are_a_plan_that_does_not_hold() -> None:
    p = Program(between(source_extent=2), LiveWeights({}), kernels=native("double_it"))
    assert p(torch.ones(2, 6)).sum() == 48
    with pytest.raises(ForgeError, match="cannot be copied into") as caught:
        p(torch.ones(3, 6))
    assert caught.value.code == "FORGE-A004"


def test_only_copies_of_what_is_known_before_the_call() -> None:
    (entry,) = between().entries
    assert native_launches(entry) == [True, True, True]
    b = EntryBuilder()
    x, y = b.input("x", f32(4)), b.output("y", f32(4))
    b.inplace("aten::copy_", y, x)
    assert native_launches(b.build(y)) == [False]  # no kernels, no driver


class Counting(torch.nn.Module):
    """Two states: one a kernel adds to, one is written by a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 6))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.index_copy_(0, self.count, x)
        self.count.add_(1)
        return self.rows * 2


def test_sessions_in_turn_share_a_frame_and_no_state() -> None:
    compiled = forgec.compile(Counting().eval(), (torch.zeros(1, 6),), target="cpu:host")
    first, second = compiled.session(), compiled.session()
    expected = [torch.zeros(4, 6), torch.zeros(4, 6)]
    for number in range(4):
        for which, session in enumerate((first, second)):
            row = torch.randn(1, 6)
            expected[which][number] = row[0]
            given = row.numpy() if number % 2 else row
            assert torch.equal(torch.as_tensor(session(given)), expected[which] * 2)
    first.reset()
    assert torch.equal(first(row), torch.cat([row, torch.zeros(3, 6)]) * 2)
    assert torch.equal(second.state_dict()["rows"], expected[1])


def test_a_step_with_a_cache_is_one_call() -> None:
    from tests.models.test_static_cache import greedy, step

    compiled = forgec.compile(step(registered=False), (torch.tensor([[1]]),), target="cpu:host")
    with torch.no_grad():
        expected = greedy(step(registered=False), 5, 12)
    assert greedy(compiled.session(), 5, 12) == expected
    (lane,) = compiled._program._lanes
    (frame,) = lane.frames.values()
    assert len(frame.steps) == 1
    assert not frame.assigned
