"""What the runtime itself costs: loading, and dispatch per operation."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from forgec.runtime import LiveWeights, Program, load, write_artifact
from tests.runtime.build import EntryBuilder, f32, plan_of


def test_dispatch_takes_at_most_three_microseconds() -> None:
    count = 1000
    b = EntryBuilder()
    x, y = b.input("x", f32(8)), b.input("y", f32(8))
    last = x
    for i in range(count - 1):
        t = b.buffer(f"t{i}", f32(8), 64 * (i % 2), i, i + 2)
        b.out("aten::add.out", last, y, out=t)
        last = t
    z = b.output("z", f32(8))
    b.out("aten::add.out", last, y, out=z)
    p = Program(plan_of(b.build(z, arena=128)), LiveWeights({}), threads=1)
    x, y = torch.zeros(8), torch.ones(8)
    assert torch.equal(p(x, y), torch.full((8,), float(count)))
    seconds: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        p(x, y)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) / count < 3e-6  # 1.5e-6 on an idle machine, of which the operation itself is 1.35e-6


@pytest.mark.slow
def test_loading_half_a_gigabyte(tmp_path: Path) -> None:
    b = EntryBuilder()
    last = b.input("x", f32(1, 1024))
    weights = {f"layers.{i}.weight": torch.ones(1024, 1024) for i in range(125)}
    params = [b.param(name, f32(1024, 1024)) for name in weights]
    count = 750
    for i in range(count):
        t = b.buffer(f"t{i}", f32(1, 1024), 4096 * (i % 2), i, min(i + 2, count + 1))
        b.out("aten::mm.out", last, params[i % 125], out=t)
        last = t
    y = b.output("y", f32(1, 1024))
    b.out("aten::relu.out", last, out=y)
    path = tmp_path / "large.forge"
    write_artifact(path, plan_of(b.build(y, arena=8192)), weights)
    assert path.stat().st_size > 500e6
    seconds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        load(path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2  # 0.03 on an idle machine
    path.unlink()
