"""The peak that the plan promises is the peak that torch's allocator sees."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program
from forgec.runtime.binding import Peak
from forgec.runtime.plan import Plan
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, s0


def measured(program: Program, *args: torch.Tensor) -> int:
    """The most bytes allocated at one time during a call, by torch's own account."""
    gc.collect()  # what others left is not to be freed, and so counted, during the call
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = program(*args)
    finally:
        gc.enable()
    live = most = 0
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    for event in results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    del result
    return most


def chain(rows: object = 4096) -> Plan:
    """Buffers, an external that dies early and one that lives long, an output that is written last."""
    b = EntryBuilder()
    x = b.input("x", f32(rows))  # type: ignore[arg-type]
    spec = b.registers[0].spec
    static = isinstance(rows, int)
    size = 4 * rows if isinstance(rows, int) else 0
    t = b.buffer("t", spec, 0 if static else None, 0, 3)
    u = b.buffer("u", spec, size if static else None, 2, 5)
    early = b.external("early", spec, 1, 3)
    late = b.external("late", spec, 3, 6)
    y = b.output("y", spec)
    b.out("aten::neg.out", x, out=t)
    b.call("aten::exp", t, results=(early,))
    b.out("aten::add.out", t, early, out=u)
    b.call("aten::exp", u, results=(late,))
    b.inplace("aten::neg_", u)
    b.out("aten::sin.out", late, out=y)
    return plan_of(b.build(y, arena=2 * size if static else None), symbols=() if static else (SEQ,))


def test_static() -> None:
    p = Program(chain(), LiveWeights({}))
    expected = p.peak_bytes()
    assert expected == Peak(2 * 4 * 4096, 2 * 4 * 4096)
    assert measured(p, torch.ones(4096)) == expected.total_bytes


def test_dynamic() -> None:
    p = Program(chain(s0 * 1024), LiveWeights({}))
    assert p.peak_bytes(s0=3) == p.peak_bytes(seq=3) == Peak(2 * 4 * 3072, 2 * 4 * 3072)
    assert measured(p, torch.ones(3072)) == p.peak_bytes(seq=3).total_bytes
    # The arena grows for a larger call, without both arenas at one time, and is kept for a smaller one.
    grown = measured(p, torch.ones(64 * 1024)) + p.peak_bytes(seq=3).arena_bytes
    assert grown == p.peak_bytes(seq=64).total_bytes
    assert measured(p, torch.ones(1024)) == p.peak_bytes(seq=1).transient_bytes


def test_refuses_unknown_symbols() -> None:
    p = Program(chain(s0), LiveWeights({}))
    cases: list[tuple[dict[str, Any], str]] = [({}, "U005"), ({"other": 1, "s0": 2}, "U005"), ({"s0": 65}, "R004")]
    for symbols, code in cases:
        with pytest.raises(ForgeError, match=code):
            p.peak_bytes(**symbols)
