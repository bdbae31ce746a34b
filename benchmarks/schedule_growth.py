"""How the scheduler's time grows with the number of ops: random graphs, and chains of attention-like parts.

``python -m benchmarks schedule_growth`` prints a table and writes a chart (``docs/schedule_growth.svg``, or where
``--svg`` says, when run as a module of its own). Times are of the machine model of Hopper, one worker, and a limit for
each graph; a graph that meets it has a schedule with a gap, which the table counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from fractions import Fraction
from math import log10
from pathlib import Path
from random import Random

from benchmarks.measure import table
from forgec.schedule import machine as machines
from forgec.schedule.check import check
from forgec.schedule.graph import Dependence, Graph, Op, Read, Value
from forgec.schedule.machine import Machine
from forgec.schedule.solve import schedules

SIZES = (4, 8, 16, 32, 48, 64)
GRAPHS = 3
"""Random graphs of each size, and chains of each size, which differ in their tiles."""
LIMIT = 10.0
CHART = Path("docs") / "schedule_growth.svg"
COLOURS = {"random graphs": "#1f6feb", "chains of attention-like parts": "#bf3989"}


@dataclass(frozen=True)
class Point:
    """One graph: seconds of wall, processor and deterministic time, the status, and the gap of the interval."""

    family: str
    ops: int
    wall: float
    processor: float
    deterministic: float
    status: str
    gap: float


def random_loop(random: Random, count: int, machine: Machine) -> Graph:
    """Copies, products, exponentials and sums, each of which reads one or two results before it, some carried round."""
    ops: list[Op] = []
    readers: dict[str, list[Read]] = {}
    memory: dict[str, tuple[str, int]] = {}
    for number in range(count):
        kind = random.choice(("load", "mma", "exp2", "arithmetic", "arithmetic")) if number else "load"
        columns = random.choice((16, 32, 64))
        name = f"{kind}{number}"
        if kind == "load":
            op = machine.op(name, {"load": 64 * columns * 2}, role="load")
            memory[name] = ("shared", 64 * columns * 2)
        elif kind == "mma":
            op = machine.op(name, {"mma.bf16": 64 * columns * 64}, role="mma")
            memory[name] = ("register", 64 * 4)
        else:
            op = machine.op(name, {kind: 64 * columns}, role="softmax")
            memory[name] = ("register", 64 * 4)
        for source in random.sample(ops, min(len(ops), random.choice((1, 1, 2)))) if kind != "load" else ():
            readers[source.name].append(Read(name, op.latency if kind == "mma" else op.issue))
        ops.append(op)
        readers[name] = []
    dependences = []
    for _ in range(count // 8):
        first, last = sorted(random.sample(range(count), 2))
        dependences.append(Dependence(ops[last].name, ops[first].name, ops[last].latency, random.choice((1, 2))))
    values = [
        Value(f"of_{name}", name, where, size, tuple(readers[name]), crossing=True)
        for name, (where, size) in memory.items()
    ]
    return Graph(f"random {count}", tuple(ops), tuple(values), tuple(dependences))


def chain(parts: int, columns: int, machine: Machine) -> Graph:
    """Parts of four ops after one another: a copy, a product with it, exponentials, and a product that adds them up."""
    rows, ops, values = machine.instruction("mma.bf16").rows, [], []
    for part in range(parts):
        load = machine.op(f"load.{part}", {"load": columns * 64 * 2}, role="load")
        scores = machine.op(f"qk.{part}", {"mma.bf16": rows * columns * 64}, role="mma")
        exp = machine.op(f"exp.{part}", {"exp2": rows * columns, "arithmetic": rows * columns}, role="softmax")
        output = machine.op(f"pv.{part}", {"mma.bf16": rows * columns * 16}, role="mma")
        ops += [load, scores, exp, output]
        size = rows * columns * 4
        blocks = (Read(scores.name, scores.latency), Read(output.name, output.latency))
        after = (Read(f"qk.{part + 1}", machine.instruction("mma.bf16").issue or 0),) if part + 1 < parts else ()
        values += [
            Value(f"block.{part}", load.name, "shared", columns * 64 * 2, blocks),
            Value(f"s.{part}", scores.name, "register", size, (Read(exp.name, 0),)),
            Value(f"p.{part}", exp.name, "register", size // 2, (Read(output.name, output.latency),)),
            Value(f"o.{part}", output.name, "register", rows * 16, (*after, Read(output.name, 0, 1)), crossing=True),
        ]
    return Graph(f"chain {parts}", tuple(ops), tuple(values), work=Fraction(parts))


def measured(family: str, graph: Graph, machine: Machine, limit: float) -> Point:
    """Solve a graph, and have the answer checked."""
    began, busy = time.perf_counter(), time.process_time()
    schedule = schedules([[graph]], machine, limit=limit)[0]
    wall, processor = time.perf_counter() - began, time.process_time() - busy
    assert check(schedule, machine) == []
    certificate = schedule.certificate
    assert certificate is not None
    ii = schedule.phases[0].ii
    least = min(certificate.undecided, default=ii)
    return Point(
        family, len(graph.ops), wall, processor, certificate.deterministic_time, certificate.status, ii / least - 1
    )


def measure(sizes: tuple[int, ...] = SIZES, graphs: int = GRAPHS, limit: float = LIMIT) -> list[Point]:
    """All graphs of all sizes."""
    machine, found = machines.named("sm_90a"), []
    for size in sizes:
        for number in range(graphs):
            loop = random_loop(Random(1000 * size + number), size, machine)
            found.append(measured("random graphs", loop, machine, limit))
            loop = chain(size // 4, 8 * (1 + number % 3), machine)
            found.append(measured("chains of attention-like parts", loop, machine, limit))
    return found


def rows_of(points: list[Point]) -> list[list[str]]:
    """One row for each family and size: median and worst times, and how the graphs ended."""
    rows = []
    for family in COLOURS:
        for size in sorted({point.ops for point in points}):
            mine = [point for point in points if (point.family, point.ops) == (family, size)]
            times = [[point.wall for point in mine], [point.processor for point in mine]]
            times.append([point.deterministic for point in mine])
            ends = [point.status for point in mine]
            rows.append(
                [
                    family,
                    str(size),
                    *(f"{statistics.median(row):.2f} / {max(row):.2f}" for row in times),
                    ", ".join(f"{ends.count(status)} {status}" for status in sorted(set(ends))),
                    f"{max(point.gap for point in mine):.1%}",
                ]
            )
    return rows


def chart(points: list[Point], limit: float) -> str:
    """Seconds over ops as SVG, seconds on a scale of tens: medians as a line, each graph as a dot."""
    width, height, left, bottom, top = 720, 360, 70, 300, 40
    sizes = sorted({point.ops for point in points})
    low, high = -2.0, max(1.0, log10(limit) + 0.5)

    def x(ops: int) -> float:
        return left + (width - left - 30) * ops / max(sizes)

    def y(seconds: float) -> float:
        return bottom - (bottom - top) * (log10(max(seconds, 10**low)) - low) / (high - low)

    text = 'font-family="sans-serif" font-size="12" fill="#444"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    title = f"seconds of one core to solve, over ops of the loop (limit {limit:g} s; hollow: a gap is left)"
    parts.append(f'<text x="{left}" y="20" {text}>{title}</text>')
    for power in range(int(low), int(high) + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{left}" x2="{width - 30}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end" {text}>{10.0**power:g}</text>')
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{bottom + 18}" text-anchor="middle" {text}>{size}</text>')
    for number, (family, colour) in enumerate(COLOURS.items()):
        mine = [point for point in points if point.family == family]
        for point in mine:
            shape = f'cx="{x(point.ops):.1f}" cy="{y(point.processor):.1f}" r="3"'
            # A hollow dot has a gap.
            fill = colour if point.status == "optimal" else "white"
            parts.append(f'<circle {shape} fill="{fill}" stroke="{colour}" fill-opacity="0.6"/>')
        medians = [(size, statistics.median(point.processor for point in mine if point.ops == size)) for size in sizes]
        line = " ".join(f"{x(size):.1f},{y(seconds):.1f}" for size, seconds in medians)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{left + 300 * number}" y="{height - 24}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18 + 300 * number}" y="{height - 14}" {text}>{family} (line: median)</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print the table and write the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule_growth", description=__doc__)
    parser.add_argument("--svg", type=Path, default=CHART, help=f"where the chart goes (default: {CHART})")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for each graph (default: {LIMIT:g})")
    parser.add_argument("--graphs", type=int, default=GRAPHS, help=f"of each size and family (default: {GRAPHS})")
    options = parser.parse_args(arguments or [])
    points = measure(graphs=options.graphs, limit=options.limit)
    header = ["graphs", "ops", "wall s, median / worst", "processor s", "deterministic s", "ended", "largest gap"]
    table("Growth of the scheduler", header, rows_of(points))
    options.svg.write_text(chart(points, options.limit), encoding="utf-8")
    print(f"\nwrote {options.svg}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
