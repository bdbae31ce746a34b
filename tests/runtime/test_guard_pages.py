"""No kernel of a model touches memory outside of its buffers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from forgec.runtime import write_artifact
from forgec.runtime.plan import Plan
from tests.models.test_architectures import ROWS
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.native import native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machine code is for Linux on x86-64")

ROOT = Path(__file__).resolve().parents[2]
USUAL = ("LlamaForCausalLM", "T5ForConditionalGeneration", "ConvNextModel")
"""Attention with norms and gates, a relative bias, convolutions."""

OUTSIDE = """
import os, sys, tempfile, numpy
from tests.runtime import guard_pages
for side in guard_pages.SIDES:
    for name in sys.argv[1:]:
        with tempfile.TemporaryFile("w+") as log:
            child = os.fork()
            if not child:
                guard_pages.LOG = log
                guards = guard_pages.Guards(side)
                with guards.up():
                    guard_pages.load(f"{name}-{side}.forge")(guards.copy(numpy.ones(5, numpy.float32)))
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            log.seek(0)
            print(side, name, status, log.read().split("(launch ")[-1].split(",")[0])
"""
"""Runs each artifact in a process that may die, and prints how it ended and in which launch."""


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, **options)


def check(names: tuple[str, ...]) -> None:
    done = run("-m", "tests.runtime.guard_pages", *names)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-1500:]}"
    assert all(f"{name}, static: " in done.stdout for name in names)


def test_models() -> None:
    check(USUAL)


@pytest.mark.wide
@pytest.mark.parametrize("begin", range(0, 240, 20))
def test_every_architecture(begin: int) -> None:
    names = [row.name for row in ROWS if not row.refused][begin : begin + 20]
    check(tuple(names))


PLACES = ("input", "weight", "buffer", "output", "nothing")


def one_off(wrong: str, shift: int) -> Plan:
    """Four copies of five elements; the one of this name reads or writes its elements so much further."""
    b = EntryBuilder()
    x, w, y = b.input("x", f32(5)), b.param("w", f32(5)), b.output("y", f32(5))
    t, u = b.buffer("t", f32(5), 0, 0, 4), b.buffer("u", f32(5), 64, 1, 4)
    start = {name: 1 + shift * (name == wrong) for name in PLACES}
    for source, first, to, last in (
        (x, start["input"], t, 1), (w, start["weight"], u, 1), (t, start["buffer"], u, 1), (u, 1, y, start["output"])
    ):  # fmt: skip
        b.kernel("shifted", source, to, first, last, grid=(5,), writes=(to,))
    return plan_of(b.build(y, arena=128))


def test_a_kernel_that_leaves_its_buffer_is_caught(tmp_path: Path) -> None:
    for side, shift in (("end", 1), ("begin", -1)):
        for name in PLACES:
            path, plan = tmp_path / f"{name}-{side}.forge", one_off(name, shift if name != "nothing" else 0)
            write_artifact(path, plan, {"w": torch.ones(5)}, kernels=native("shifted"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run("-c", OUTSIDE, *PLACES, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    segfault = -signal.SIGSEGV
    ends = [f"{name} {segfault} {position}" for position, name in enumerate(PLACES[:-1])] + ["nothing 0 3"]
    assert done.stdout.split("\n")[:-1] == [f"{side} {end}" for side in ("end", "begin") for end in ends]
