"""Kernels on several threads: the same results, the first error, one team for all callers, none left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import LiveWeights, Program, cpu_count, load, openmp, team, write_artifact
from forgec.runtime.kernel_table import NativeCode
from forgec.runtime.plan import Plan, TensorSpec
from forgec.runtime.segment import chunk_of
from forgec.runtime.team import TEAM
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.native import CHECKED, native, scaled

ROWS = 64


@pytest.fixture(params=["openmp", "own"], autouse=True)
def members(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Torch's threads, and workers of our own, as in a process without torch."""
    if request.param == "own":
        TEAM._renew()
        monkeypatch.setattr(openmp, "find", lambda: None)
    yield request.param
    if request.param == "own":
        TEAM.close()
    TEAM._renew()


def costly(cost_ns: int = 20_000, **changes: Any) -> NativeCode:
    """Kernels that claim to be worth several threads."""
    found = native("double_it", "scale_rows", "take")
    kernels = tuple(replace(kernel, cost_ns=cost_ns, **changes) for kernel in found.table.kernels)
    return NativeCode(replace(found.table, kernels=kernels), found.code)


def chain(count: int = 24, wrong: int | None = None) -> Plan:
    """Kernels one after another, each reading what the one before wrote in rows that other threads had. Some have one
    program, some none; number ``wrong`` takes elements at an index.
    """
    b = EntryBuilder()
    last, s = b.input("x", f32(ROWS, 32)), b.input("s", f32(ROWS))
    index = b.input("index", TensorSpec.contiguous("i64", (ROWS,)))
    total = count + 1 + sum(i == wrong or i % 4 == 1 for i in range(count))
    if wrong is not None:
        taken = b.buffer("taken", f32(ROWS), count * ROWS * 128, 0, total)
    for i in range(count):
        t = b.buffer(f"t{i}", f32(ROWS, 32), i * ROWS * 128, 0, total)
        if i == wrong:
            b.kernel("take", s, index, taken, ROWS, grid=(ROWS,), writes=(taken,))
            b.kernel("double_it", last, t, grid=(ROWS, 32), writes=(t,))
        elif i % 4 == 3:
            b.kernel("scale_rows", last, s, t, 32, grid=(ROWS,), writes=(t,))
        elif i % 4 == 1:
            b.kernel("scale_rows", last, s, t, ROWS * 32, grid=(1,), writes=(t,))
            b.kernel("double_it", last, t, grid=(0, 32), writes=(t,))
        else:
            b.kernel("double_it", last, t, grid=(ROWS, 32), writes=(t,))
        last = t
    y = b.output("y", f32(ROWS, 32))
    b.kernel("double_it", last, y, grid=(ROWS, 32), writes=(y,))
    return plan_of(b.build(y, arena=count * ROWS * 128 + (0 if wrong is None else 4 * ROWS)))


def arguments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    draw = torch.randn(ROWS, 32, generator=generator), torch.rand(ROWS, generator=generator) + 0.5
    return *draw, torch.randint(0, ROWS, (ROWS,), generator=generator)


def expected(x: torch.Tensor, s: torch.Tensor, count: int = 24) -> torch.Tensor:
    for i in range(count):
        x = x * s[:, None] if i % 4 == 3 else x * s[0] if i % 4 == 1 else x * 2
    return x * 2


def programs(plan: Plan, kernels: NativeCode, *threads: int) -> list[Program]:
    return [Program(plan, LiveWeights({}), kernels=kernels, threads=count) for count in threads]


def test_one_segment_for_all_kernels_and_the_same_results() -> None:
    arguments_ = arguments()
    for cost_ns in (20_000, 300, 1):  # shares of single programs, of a few, and one thread for all
        found = programs(chain(), costly(cost_ns), 1, 2, 4, 7)
        for program in found:
            for _ in range(20):
                assert torch.equal(program(*arguments_), expected(*arguments_[:2]))
        (frame,) = found[0]._lanes[0].frames.values()
        assert len(frame.steps) == 1
        (segment,) = frame.segments.values()
        assert segment._is_shared == (cost_ns > 1)


def test_how_launches_are_split() -> None:
    (kernel, *_) = costly(500).table.kernels
    assert chunk_of(kernel, 1000) == 4
    assert chunk_of(kernel, 19) == 0
    assert chunk_of(kernel, 0) == 0
    assert chunk_of(replace(kernel, cost_ns=1 << 40), 1) == 0
    assert [chunk_of(replace(kernel, cost_ns=1 << 40, together=4), count) for count in (4, 24, 64)] == [1, 3, 4]
    assert chunk_of(replace(kernel, serial=True), 1000) == 0


def test_serial_kernels_run_on_one_thread() -> None:
    arguments_ = arguments()
    for program in programs(chain(), costly(serial=True), 2, 4):
        assert torch.equal(program(*arguments_), expected(*arguments_[:2]))
        (frame,) = program._lanes[0].frames.values()
        assert not any(record.chunk for segment in frame.segments.values() for record in segment._records)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_first_failing_program_is_reported(threads: int) -> None:
    x, s, index = arguments()
    for cost_ns in (20_000, 1):
        (program,) = programs(chain(wrong=14), costly(cost_ns), threads)
        for places in ([3], [60], [5, 20, 40, 63], []):
            for _ in range(5):
                wrong = index.clone()
                wrong[places] = ROWS + 7
                if not places:
                    assert program(x, s, wrong).shape == x.shape
                    continue
                with pytest.raises(ForgeError, match=CHECKED) as caught:
                    program(x, s, wrong)
                assert caught.value.code == "FORGE-R014"
                assert str(caught.value.diagnostics[0].location) == "model.py:3 in Model.forward (layers.0)"


def test_a_failing_launch_is_found_among_the_others() -> None:
    """A state is broken only if the launch that writes it, or a later one, failed."""
    for position in (0, 1):
        b = EntryBuilder()
        index = b.input("index", TensorSpec.contiguous("i64", (ROWS,)))
        total, table = b.state("total", f32(ROWS)), b.input("table", f32(ROWS))
        y = b.output("y", f32(ROWS))
        launches: list[Callable[[], Any]] = [
            lambda b=b, i=index, t=table, y=y: b.kernel("take", t, i, y, ROWS, grid=(ROWS,), writes=(y,)),
            lambda b=b, t=total: b.kernel("double_it", t, t, grid=(ROWS,), writes=(t,)),
        ]
        for launch in launches if position == 0 else reversed(launches):
            launch()
        (program,) = programs(plan_of(b.build(y)), costly(), 2)
        table = torch.randn(ROWS)
        with pytest.raises(ForgeError, match="FORGE-R014"):
            program(torch.full((ROWS,), ROWS), table)
        if position == 0:
            assert torch.equal(program(torch.arange(ROWS), table), table)
        else:
            with pytest.raises(ForgeError, match="FORGE-R009"):
                program(torch.arange(ROWS), table)


def test_callers_in_several_threads() -> None:
    found, arguments_ = programs(chain(), costly(), 1, 2, 4), arguments()
    wanted, wrong = expected(*arguments_[:2]), []

    def work(number: int) -> None:
        for _ in range(30):
            if not torch.equal(found[number % 3](*arguments_), wanted):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_callers_some_of_which_fail() -> None:
    """Teams of other sizes one after another, while threads of the one before are still on their way out."""
    good, bad = programs(chain(), costly(), 2, 3, 4), programs(chain(wrong=14), costly(), 2, 3, 4)
    x, s, index = arguments()
    outside, wanted, wrong = torch.full_like(index, ROWS), expected(x, s), []

    def work(number: int) -> None:
        for step in range(200):
            if (step + number) % 2:
                if not torch.equal(good[step % 3](x, s, index), wanted):
                    wrong.append(step)
                continue
            try:
                bad[step % 3](x, s, outside)
                wrong.append(step)
            except ForgeError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_within_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler runs in a thread that has the team: it goes on alone."""
    outer, inner = programs(chain(), costly(), 2, 2)
    arguments_ = arguments()
    original = TEAM._ready
    results: list[torch.Tensor] = []

    def ready(*args: Any) -> int:
        if not results:
            results.append(torch.empty(0))
            results.append(inner(*arguments_))
        return original(*args)

    monkeypatch.setattr(TEAM, "_ready", ready)
    assert torch.equal(outer(*arguments_), expected(*arguments_[:2]))
    assert torch.equal(results[1], expected(*arguments_[:2]))


def test_nobody_computes_between_calls() -> None:
    (program,) = programs(chain(), costly(), 2)
    arguments_ = arguments()
    program(*arguments_)
    time.sleep(0.1)  # OpenMP's threads look for work for some milliseconds
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.03


def test_a_forked_process_has_threads_of_its_own() -> None:
    (program,) = programs(chain(), costly(), 2)
    arguments_ = arguments()
    wanted = program(*arguments_)
    for _ in range(2):
        child = os.fork()
        if not child:  # no torch operation with several threads here: OpenMP would wait for threads that are gone
            same = [program(*arguments_).numpy().tobytes() == wanted.numpy().tobytes() for _ in range(5)]
            os._exit(0 if all(same) else 1)
        deadline = time.monotonic() + 30
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert done == (child, 0)
    assert torch.equal(program(*arguments_), wanted)


def test_torch_says_how_many_threads() -> None:
    program = Program(chain(), LiveWeights({}), kernels=costly())
    arguments_, before = arguments(), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert TEAM.threads() == threads
            program(*arguments_)
            (frame,) = program._lanes[0].frames.values()
            assert next(iter(frame.segments.values()))._job.threads == threads
    finally:
        torch.set_num_threads(before)


WITHOUT_TORCH = """
import sys, ctypes, time
from forgec.runtime.code_image import CodeImage
from forgec.runtime.artifact import open_artifact
from forgec.runtime.kernel_launch import Slots
from forgec.runtime.segment import KernelLaunch, Segment
from forgec.runtime.team import TEAM
import numpy as np
image = CodeImage(open_artifact(sys.argv[1]).images[0])
x, y, z = (np.arange(4096, dtype=np.float32) for _ in range(3))
def launch(position, source, target):
    slots = Slots(2, [])
    slots.values[0], slots.values[1] = source.ctypes.data, target.ctypes.data
    double = image.kernels['double_it']
    return KernelLaunch(double.kernel, double.address, slots, 4096, position, None)
segment = Segment(image.driver(), [launch(i, *pair) for i, pair in enumerate([(x, y), (y, z)] * 20)], 2)
for _ in range(50):
    segment.run()
    assert (z == x * 4).all()
assert TEAM._workers is not None and len(TEAM._workers._handles) == 1
assert 'torch' not in sys.modules and TEAM.threads() >= 1
time.sleep(0.05)
before = time.process_time()
time.sleep(0.3)
print(time.process_time() - before < 0.03)
"""


def test_a_process_without_torch(tmp_path: Path, members: str) -> None:
    """Its workers compute, sleep afterwards, and do not keep it from ending."""
    if members == "openmp":
        pytest.skip("there is none without torch")
    write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=costly(1000))
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "m.forge")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.stdout, found.stderr, found.returncode) == ("True\n", "", 0)


def test_after_the_workers_have_ended(members: str) -> None:
    (program,) = programs(chain(), costly(), 2)
    arguments_ = arguments()
    program(*arguments_)
    TEAM.close()
    assert torch.equal(program(*arguments_), expected(*arguments_[:2]))


def test_a_system_that_gives_no_threads(members: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team.Workers, "_start", lambda *_: False)
    (program,) = programs(chain(), costly(), 4)
    arguments_ = arguments()
    assert torch.equal(program(*arguments_), expected(*arguments_[:2]))


def test_the_library_that_is_mapped(members: str) -> None:
    maps = (
        "7f0-7f1 r-xp 00000000 08:01 5  /x/torch.libs/libgomp-a34b3233.so.1.0.0\n"
        "7f1-7f2 r--p 00000000 08:01 5  /x/torch.libs/libgomp-a34b3233.so.1.0.0\n"
        "7f2-7f3 rw-p 00000000 00:00 0 \n"
        "7f3-7f4 r-xp 00000000 08:01 6  /my models/libomp.so\n"
        "7f4-7f5 r-xp 00000000 08:01 7  /lib/libc.so.6\n"
    )
    assert openmp.mapped_libraries(maps) == ["/x/torch.libs/libgomp-a34b3233.so.1.0.0", "/my models/libomp.so"]
    if members == "openmp":
        found = openmp.find()
        assert found is not None
        assert found is openmp.find()
        assert found.library._name in openmp.mapped_libraries(openmp.MAPS.read_text())


def test_what_control_groups_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_count, "SYSTEM", tmp_path)
    monkeypatch.setattr(cpu_count, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpu_count, "allowed_cpus", lambda: list(range(16)))
    assert cpu_count.default_threads() == 16
    for cpu in range(16):  # two hardware threads on each core
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 8},{cpu % 8 + 8}\n")
    assert cpu_count.default_threads() == 8
    inner = tmp_path / "fs/cgroup/a/b"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    (inner / "cpu.max").write_text("max 100000\n")
    assert cpu_count.default_threads() == 8
    (inner.parent / "cpu.max").write_text("250000 100000\n")
    assert cpu_count.cgroup_quota() == 2.5
    assert cpu_count.default_threads() == 3
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/c\n1:memory:/a/b\n")
    legacy = tmp_path / "fs/cgroup/cpu,cpuacct/c"
    legacy.mkdir(parents=True)
    for quota, threads in (("-1", 8), ("50000", 1), ("400000", 4)):
        (legacy / "cpu.cfs_quota_us").write_text(quota)
        (legacy / "cpu.cfs_period_us").write_text("100000")
        assert cpu_count.default_threads() == threads


class Mixed(torch.nn.Module):
    """Products, softmax, norms, a gather and an update that adds, large enough for several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(500, 96)
        self.up, self.down = torch.nn.Linear(96, 400), torch.nn.Linear(400, 96)
        self.norm = torch.nn.LayerNorm(96)

    def forward(self, ids: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.table(ids)
        x = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
        weights = torch.softmax(x @ x.transpose(-1, -2), -1)
        sums = torch.zeros(40, 96).index_add(0, places, x[0])
        return weights @ x, sums


def gpt2() -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=500, n_embd=96, n_head=4, n_layer=2, use_cache=False))


def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 96, "intermediate_size": 200, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=500, num_hidden_layers=2, use_cache=False, **sizes))


@pytest.mark.parametrize("make", [Mixed, gpt2, llama])
def test_a_model_gives_the_same_bits_on_1_2_and_4_threads(members: str, make: Callable[[], torch.nn.Module]) -> None:
    torch.manual_seed(1)
    model = make().eval()
    inputs = (torch.randint(0, 500, (2, 128)), torch.randint(0, 40, (128,)))[: 2 if make is Mixed else 1]
    found = forgec.compile(model, inputs, target="cpu:x86-64-v3")
    assert found._kernels is not None
    assert any(kernel.serial for kernel in found._kernels[0].table.kernels) == (make is Mixed)

    def run(call: Callable[..., Any]) -> list[torch.Tensor]:
        result = call(*inputs)
        return [tensor.clone() for tensor in (result if isinstance(result, tuple) else (result.logits,))]

    before = torch.get_num_threads()
    results: list[list[torch.Tensor]] = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(run(found))
    finally:
        torch.set_num_threads(before)
    segments = [s for lane in found._program._lanes for frame in lane.frames.values() for s in frame.segments.values()]
    assert any(segment._is_shared for segment in segments)
    with torch.no_grad():
        for other, eager in zip(results[0], run(model), strict=True):
            torch.testing.assert_close(other, eager, rtol=1e-4, atol=1e-5)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_load_takes_a_number_of_threads(tmp_path: Path) -> None:
    write_artifact(tmp_path / "m.forge", chain(), {}, kernels=costly())
    arguments_ = arguments()
    for threads in (1, 2, 3):
        model = load(tmp_path / "m.forge", threads=threads)
        assert torch.equal(model(*arguments_), expected(*arguments_[:2]))
        (frame,) = model.program._lanes[0].frames.values()
        assert next(iter(frame.segments.values()))._job.threads == threads
