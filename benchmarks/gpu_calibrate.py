"""Measures the numbers of the scheduler's machine files on a GPU, and compares.

``python -m benchmarks.gpu_calibrate [--json FILE] [--machine sm_90a] [--compile]``. Each probe is a kernel of PTX that
reads the cycle counter around a loop. It runs with two counts, so that the difference is what one round takes,
without what starting and ending cost. ``--compile`` translates the probes by ptxas and runs nothing, which needs no
GPU. Each probe runs in a process of its own: one that fails leaves the others alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import cuda_driver
from forgec.schedule import machine as machines
from forgec.schedule.machine import Machine

SHARED = 128 * 1024
REGION = 1 << 30
"""Bytes of global memory that copies go over where they are to miss the cache."""
FLUSHED = 1 << 28
"""Bytes that are written to put everything else out of the cache."""
REPEATS = 7
SECONDS = 60
"""For one probe, after which it is given up."""


@dataclass(frozen=True)
class Probe:
    """One kernel: ``body`` is what one round does, ``before`` and ``after`` stand around the loop.

    ``amount``: of ``unit``, what one round of a block does; with ``rate`` the result is amount over cycles, else
    cycles over amount. ``grid``: blocks, or 0 for one on each multiprocessor. ``counts``: rounds of the two runs.
    ``expected``: the machine file's number. ``one_lane``: only the first lane of each warp runs the loop. ``cold``:
    what it reads is not in the cache.
    """

    name: str
    unit: str
    body: str
    expected: Callable[[Machine], float | None]
    threads: int = 128
    amount: float = 1
    rate: bool = True
    before: str = ""
    after: str = ""
    grid: int = 1
    counts: tuple[int, int] = (64, 192)
    registers: str = ""
    one_lane: bool = False
    cold: bool = False


@dataclass(frozen=True)
class Measured:
    """What a probe found: ``value`` in ``unit``, the machine file's ``expected``, or why it found nothing."""

    name: str
    unit: str
    value: float | None
    expected: float | None
    failure: str = ""


def charge(kind: str, unit: str | None = None) -> Callable[[Machine], float | None]:
    """Items a cycle of an instruction on a unit, the first unless named."""

    def expected(machine: Machine) -> float | None:
        row = machine.instructions[kind].charges if kind in machine.instructions else ()
        return next((float(each.per_cycle) for each in row if unit in (None, each.unit)), None)

    return expected


def latency(kind: str) -> Callable[[Machine], float | None]:
    """Cycles of latency of an instruction, with what its units take for the least work."""

    def expected(machine: Machine) -> float | None:
        if kind not in machine.instructions:
            return None
        instruction = machine.instructions[kind]
        return float(instruction.latency + max((each.start for each in instruction.charges), default=0))

    return expected


def wait(phase: str, label: str) -> str:
    """Wait for a phase of the barrier at %bar; after a long time in vain the kernel traps."""
    return f"""
    mov.u32 %spin, 0;
{label}:
    mbarrier.try_wait.parity.shared::cta.b64 %done, [%bar], {phase};
    @%done bra {label}_END;
    add.u32 %spin, %spin, 1;
    setp.gt.u32 %late, %spin, 4000000;
    @%late trap;
    bra {label};
{label}_END:
"""


def source(probe: Probe, target: str) -> str:
    """The probe as PTX: ``out[block]`` = cycles of the loop."""
    lane = "and.b32 %u0, %thread, 31;\n    setp.ne.u32 %q, %u0, 0;\n    @%q bra OUT;" if probe.one_lane else ""
    together = "" if probe.one_lane else "bar.sync 0;"
    version = "8.6" if target.startswith("sm_10") else "8.0"
    return f"""
.version {version}
.target {target}
.address_size 64
.extern .shared .align 1024 .b8 memory[];
.visible .entry probe(.param .u64 out, .param .u64 source, .param .u32 count)
{{
    .reg .b64 %out, %source, %begin, %end, %slot, %ad, %bd, %far, %stride, %state;
    .reg .b32 %count, %thread, %block, %base, %bar, %bar2, %mine, %spin, %parity, %warp, %u<16>;
    .reg .f32 %f<16>;
    .reg .pred %p, %done, %late, %first, %q;
    {probe.registers}
    ld.param.u64 %out, [out];
    ld.param.u64 %source, [source];
    ld.param.u32 %count, [count];
    mov.u32 %thread, %tid.x;
    mov.u32 %block, %ctaid.x;
    shr.u32 %warp, %thread, 5;
    mov.u32 %base, memory;
    add.u32 %bar, %base, {SHARED - 64};
    add.u32 %bar2, %base, {SHARED - 32};
    mov.u32 %parity, 0;
    setp.eq.u32 %first, %thread, 0;
    @%first mbarrier.init.shared::cta.b64 [%bar], 1;
    @%first mbarrier.init.shared::cta.b64 [%bar2], 1;
    fence.proxy.async;
    bar.sync 0;
    {probe.before}
    bar.sync 0;
    {lane}
    mov.u64 %begin, %clock64;
LOOP:
    {probe.body}
    sub.u32 %count, %count, 1;
    setp.ne.u32 %p, %count, 0;
    @%p bra LOOP;
    {probe.after}
    {together}
    mov.u64 %end, %clock64;
    sub.u64 %end, %end, %begin;
    mul.wide.u32 %slot, %block, 8;
    add.u64 %out, %out, %slot;
    @%first st.global.u64 [%out], %end;
OUT:
    ret;
}}
"""


def arithmetic() -> Iterator[Probe]:
    """Rates of what warps do by themselves: eight independent chains in each of 16 warps."""
    start = "".join(f"cvt.rn.f32.u32 %f{n}, %thread;\n" for n in range(16))
    keep = "".join(f"add.f32 %f0, %f0, %f{n};\n" for n in range(1, 16)) + (
        "setp.eq.f32 %q, %f0, 0f3F8CCCCD;\n@%q st.shared.f32 [%base], %f0;\n"
    )

    def each(name: str, instruction: str, expected: Callable[[Machine], float | None]) -> Probe:
        body = "".join(instruction.format(n=n) for n in range(8)) * 8
        return Probe(name, "results a cycle", body, expected, 512, 512 * 64, before=start, after=keep)

    yield each("exp2", "ex2.approx.ftz.f32 %f{n}, %f{n};\n", charge("exp2", "sfu"))
    yield each("fma of float32", "fma.rn.f32 %f{n}, %f{n}, %f8, %f9;\n", charge("arithmetic"))
    yield each("max of float32", "max.f32 %f{n}, %f{n}, %f8;\n", charge("arithmetic"))
    shuffle = "shfl.sync.bfly.b32 %f{n}, %f{n}, 1, 31, 0xffffffff;\n"
    yield each("shuffle", shuffle, charge("exchange"))


def shared_memory() -> Iterator[Probe]:
    """Bytes a cycle out of shared memory, by vector loads and by ldmatrix."""
    before = "shl.b32 %mine, %thread, 4;\nadd.u32 %mine, %mine, %base;\nmov.u32 %u15, 0;\n"
    keep = "setp.eq.u32 %q, %u15, 77;\n@%q st.shared.u32 [%base], %u15;\n"

    def hand(machine: Machine) -> float:
        return float(machine.handover.bytes_per_cycle)

    mix = "xor.b32 %u15, %u15, %u0;\nxor.b32 %u15, %u15, %u3;\n"
    # Every load has an address of its own, which changes from round to round: equal ones would be made one.
    turn = "xor.b32 %mine, %mine, 16;\n"
    for name, text in (
        ("ld.shared.v4", "ld.volatile.shared.v4.u32 {%u0, %u1, %u2, %u3}"),
        ("ldmatrix.x4", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%u0, %u1, %u2, %u3}"),
    ):
        body = "".join(f"{text}, [%mine+{512 * 16 * place % SHARED}];\n{mix}" for place in range(16)) + turn
        yield Probe(name, "bytes a cycle", body, hand, 512, 512 * 16 * 16, before=before, after=keep)


def barriers() -> Iterator[Probe]:
    """What a hand-over costs: two warps that wait for each other in turn, and a barrier that is there already."""

    def hop(machine: Machine) -> float:
        return float(machine.handover.put + machine.handover.get + machine.handover.latency)

    def arrive(bar: str) -> str:
        return f"mbarrier.arrive.shared::cta.b64 %state, [{bar}];\n"

    body = f"""
    setp.ne.u32 %q, %warp, 0;
    @%q bra OTHER;
    {arrive("%bar2")}
    {wait("%parity", "A")}
    bra JOIN;
OTHER:
    {wait("%parity", "B").replace("[%bar]", "[%bar2]")}
    {arrive("%bar")}
JOIN:
    xor.b32 %parity, %parity, 1;
"""
    # One lane of each warp, so that one arrival completes a phase.
    yield Probe("hand-over", "cycles", body, hop, 64, 2, False, one_lane=True)

    def put_get(machine: Machine) -> float:
        return float(machine.handover.put + machine.handover.get)

    own = f"{arrive('%bar')}{wait('%parity', 'A')}xor.b32 %parity, %parity, 1;\n"
    yield Probe("arrival that its own warp waits for", "cycles", own, put_get, 32, 1, False, one_lane=True)


def copies() -> Iterator[Probe]:
    """Bulk copies by the TMA: how long one takes, and how many bytes a cycle many take."""
    copy = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{to}], [%far], {size}, [%bar];\n"
        "add.u64 %far, %far, %stride;\n"
    )

    def round_of(size: int, many: int) -> str:
        expect = f"mbarrier.arrive.expect_tx.shared::cta.b64 %state, [%bar], {size * many};\n"
        text = "".join(f"add.u32 %mine, %base, {size * n};\n" + copy.format(to="%mine", size=size) for n in range(many))
        return expect + text + wait("%parity", "A") + "xor.b32 %parity, %parity, 1;\n"

    def before(stride: int, between: int) -> str:
        return f"mov.u64 %stride, {stride};\nmul.wide.u32 %far, %block, {between};\nadd.u64 %far, %far, %source;\n"

    def bandwidth(machine: Machine) -> float:
        return machine.memory_bytes_per_cycle

    cached, memory = "copy of 128 bytes, cached", "copy of 128 bytes, from memory"
    small, large = round_of(128, 1), round_of(16384, 6)
    load = latency("load")
    yield Probe(cached, "cycles", small, load, 32, 1, False, before(0, 128), one_lane=True)
    yield Probe(
        memory, "cycles", small, load, 32, 1, False, before(4224, 128), counts=(256, 1000), one_lane=True, cold=True
    )
    many = 6 * 16384
    yield Probe(
        "copies of 16 KB, cached", "bytes a cycle", large, charge("load"), 32, many, True, before(0, 16384),
        grid=0, one_lane=True,
    )  # fmt: skip
    yield Probe(
        "copies of 16 KB, from memory", "bytes a cycle", large, bandwidth, 32, many, True, before(16384, 7 << 20),
        grid=0, counts=(20, 70), one_lane=True, cold=True,
    )  # fmt: skip


def descriptor(offset: int, blackwell: bool = False) -> str:
    """Of a K-major operand with 128-byte swizzle at ``offset`` of shared memory, in %ad or %bd."""
    name = "%ad" if offset == 0 else "%bd"
    fixed = (1 << 16) | (64 << 32) | ((1 << 46) | (2 << 61) if blackwell else 1 << 62)
    return f"""
    add.u32 %u0, %base, {offset};
    shr.u32 %u0, %u0, 4;
    and.b32 %u0, %u0, 0x3fff;
    cvt.u64.u32 {name}, %u0;
    or.b64 {name}, {name}, {fixed:#x};
"""


def wgmma() -> Iterator[Probe]:
    """Products of Hopper: multiply-adds a cycle by one warp group and by two, and how long one takes by itself."""
    kinds = (("bf16", "bf16.bf16", 16, ", 0, 0"), ("fp8", "e4m3.e4m3", 32, ""))
    for dtype, types, depth, transposed in kinds:
        for columns in (64, 128, 176, 256):
            sums = ", ".join(f"%s{n}" for n in range(columns // 2))
            one = (
                f"wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.f32.{types} {{{sums}}}, %ad, %bd, 1, 1, 1"
                f"{transposed};\n"
            )
            begin = "wgmma.fence.sync.aligned;\n"
            end = "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
            before = descriptor(0) + descriptor(16384)
            before += "".join(f"mov.f32 %s{n}, 0f00000000;\n" for n in range(columns // 2))
            keep = "setp.eq.f32 %q, %s0, 0f3F8CCCCD;\n@%q st.shared.f32 [%base], %s0;\n"
            registers = f".reg .f32 %s<{columns // 2}>;"
            work = 64 * columns * depth
            for groups in (1, 2):
                yield Probe(
                    f"mma.{dtype} of 64x{columns}, {groups} warp group{'s' * (groups > 1)}", "multiply-adds a cycle",
                    begin + one * 8 + "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 1;\n",
                    charge(f"mma.{dtype}"), 128 * groups, work * 8 * groups, before=before,
                    after="wgmma.wait_group.sync.aligned 0;\n" + keep, registers=registers,
                )  # fmt: skip

            def alone(machine: Machine, kind: str = f"mma.{dtype}", work: int = work) -> float | None:
                rest = latency(kind)(machine)
                rate = charge(kind)(machine)
                return None if rest is None or rate is None else rest + work / rate

            yield Probe(f"mma.{dtype} of 64x{columns} alone", "cycles", begin + one + end, alone, 128, 1, False,
                        before, keep, registers=registers)  # fmt: skip


def tcgen05() -> Iterator[Probe]:
    """Products of Blackwell, whose sums are in tensor memory: multiply-adds a cycle, and how long one takes."""
    for columns in (64, 128, 256):
        kind = (1 << 4) | (1 << 7) | (1 << 10) | (columns // 8 << 17) | (128 // 16 << 24)
        before = (
            "setp.eq.u32 %q, %warp, 0;\n"
            "@%q tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%base], 512;\n"
            "bar.sync 0;\nld.shared.u32 %mine, [%base];\nbar.sync 0;\n"
            + descriptor(0, True) + descriptor(16384, True)
            + f"mov.u32 %u1, {kind:#x};\n"
        )  # fmt: skip
        one = "@%first tcgen05.mma.cta_group::1.kind::f16 [%mine], %ad, %bd, %u1, %first;\n"
        end = (
            "@%first tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar];\n"
            + wait("%parity", "A") + "xor.b32 %parity, %parity, 1;\n"
        )  # fmt: skip
        free = "bar.sync 0;\n@%q tcgen05.dealloc.cta_group::1.sync.aligned.b32 %mine, 512;\n"
        work = 128 * columns * 16
        yield Probe(f"mma.bf16 of 128x{columns}", "multiply-adds a cycle", one * 32 + end, charge("mma.bf16"),
                    128, work * 32, before=before, after=free)  # fmt: skip
        yield Probe(f"mma.bf16 of 128x{columns} alone", "cycles", one + end, latency("mma.bf16"), 128, 1, False,
                    before, free)  # fmt: skip


def probes(target: str) -> list[Probe]:
    """All of a target."""
    products = {"sm_90a": wgmma, "sm_100a": tcgen05}.get(target)
    return [*arithmetic(), *shared_memory(), *barriers(), *copies(), *(products() if products else ())]


def measure(probe: Probe, target: str) -> float:
    """Run a probe on the device of this machine.

    Raises:
        RuntimeError: where the driver or ptxas refuse something.
    """
    device = cuda_driver.Device()
    text = source(probe, target)
    image = cuda_driver.cubin(text, target) or text.encode() + b"\0"
    function = device.function(image, "probe", SHARED)
    grid = probe.grid or device.attribute(cuda_driver.MULTIPROCESSORS)
    out, memory = device.allocate(8 * grid), device.allocate(REGION + FLUSHED)
    rounds: list[float] = []
    for _ in range(REPEATS):
        times: list[float] = []
        for count in probe.counts:
            if probe.cold:
                device.clear(memory + REGION, FLUSHED)
            blocks = device.launch(function, grid, probe.threads, SHARED, out, memory, count)
            times.append(statistics.median(blocks))
        few, many = times
        rounds.append((many - few) / (probe.counts[1] - probe.counts[0]))
    cycles = statistics.median(rounds)
    return probe.amount / cycles if probe.rate else cycles / probe.amount


def in_its_own_process(number: int, probe: Probe, target: str, machine: Machine) -> Measured:
    """A probe's result, whatever becomes of it."""
    command = [sys.executable, "-m", "benchmarks.gpu_calibrate", "--only", str(number), "--target", target]
    expected = probe.expected(machine)
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Measured(probe.name, probe.unit, None, expected, f"took more than {SECONDS} s")
    if run.returncode:
        return Measured(probe.name, probe.unit, None, expected, (run.stderr.strip().splitlines() or ["no message"])[-1])
    return Measured(probe.name, probe.unit, float(run.stdout), expected)


def report(found: list[Measured], machine: Machine) -> str:
    """A Markdown table of what was measured and what the machine file says."""
    lines = [f"### {machine.title}\n", "| probe | unit | measured | machine file | ratio |", "|---|---|---|---|---|"]
    for each in found:
        value = each.failure if each.value is None else f"{each.value:.1f}"
        expected = "" if each.expected is None else f"{each.expected:g}"
        share = f"{each.value / each.expected:.2f}" if each.value and each.expected else ""
        lines.append(f"| {each.name} | {each.unit} | {value} | {expected} | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Compile or run the probes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_calibrate", description=__doc__)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--target", help="architecture (default: that of the device)")
    parser.add_argument("--machine", help="machine file to compare with (default: the target's)")
    parser.add_argument("--compile", action="store_true", help="only translate the probes; needs no device")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    target = options.target or f"sm_{cuda_driver.Device().capability}a"
    row = probes(target)
    if options.only is not None:
        print(measure(row[options.only], target))
        return
    if options.compile:
        for probe in row:
            image = cuda_driver.cubin(source(probe, target), target)
            print(f"{probe.name}: {'no ptxas' if image is None else f'{len(image)} bytes'}")
        return
    machine = machines.named(options.machine or target)
    found = [in_its_own_process(number, probe, target, machine) for number, probe in enumerate(row)]
    print(report(found, machine))
    if options.json:
        values = {"target": target, "machine": machine.name, "probes": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
