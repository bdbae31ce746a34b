"""The pass on whole modules: schedules that are stored, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from forgec.ir.context import context
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes import remarks
from forgec.passes.schedule.body import loops_of
from forgec.passes.schedule.extract import phases
from forgec.passes.schedule_kernel import ScheduleKernel
from forgec.schedule import machine, solve
from forgec.schedule.bounds import lower_bounds
from tests.ir.build import parse
from tests.passes.schedule.test_lower import TWO_LOOPS


def lowered(trips: tuple[int, int] = (8, 2)) -> ModuleOp:
    """Two loops in groups of warps that run so many times."""
    module = parse(TWO_LOOPS)
    for count, symbol in zip(trips, ("n0", "n1"), strict=True):
        module = parse(str(module).replace(f"tile.index {symbol} * 16()", f"tile.index {16 * count}()"))
    ScheduleKernel(limit=10.0).apply(context(), module)
    return module


def test_a_kernel_is_solved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    first = str(lowered())
    (entry,) = (tmp_path / "schedules").glob("*.json")

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it is solved again")

    with monkeypatch.context() as without:
        without.setattr(solve, "schedules", again)
        assert str(lowered()) == first
    # What is stored is checked before it is used.
    entry.write_text(entry.read_text().replace('"ii":', '"ii":1'))
    with remarks.collected() as found:
        assert str(lowered()) == first
    assert "FORGE-S011" in [each.code for each in found]


@pytest.mark.parametrize("trips", [(8, 2), (2, 8)])
def test_the_summary_is_that_of_the_longest_loop(trips: tuple[int, int]) -> None:
    (warp,) = lowered(trips).ops
    assert isinstance(warp, WarpKernelOp)
    assert warp.schedule is not None
    stated = warp.schedule.data
    hopper = machine.named("sm_90a")
    (kernel,) = parse(TWO_LOOPS).ops
    assert isinstance(kernel, KernelOp)
    longest = phases(kernel, hopper, loops=loops_of(kernel))[trips.index(max(trips))].graph
    bound = lower_bounds(longest, hopper)[0]
    assert (stated.bound, stated.binding) == (bound.cycles, bound.name)
    assert stated.ii >= stated.bound > 0
