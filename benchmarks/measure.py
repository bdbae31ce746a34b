"""Timing: interleaved runs, medians, and a check that the machine is idle."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Seconds of one contender over all rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleaved(contenders: Sequence[tuple[str, Callable[[], Any]]], *, rounds: int, inner: int = 1) -> list[Sample]:
    """Call the contenders in turn, ``rounds`` times (after one warm round); a sample is the mean of ``inner`` calls."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in contenders}
    for number in range(rounds + 1):
        for name, function in contenders:
            started = time.perf_counter()
            for _ in range(inner):
                function()
            elapsed = (time.perf_counter() - started) / inner
            if number:
                seconds[name].append(elapsed)
    return [Sample(name, tuple(values)) for name, values in seconds.items()]


def ratio(sample: Sample, base: Sample) -> float:
    """The median of the ratios round by round: drift of the machine cancels."""
    return statistics.median(a / b for a, b in zip(sample.seconds, base.seconds, strict=True))


def machine() -> str:
    """One line about the machine: cores, load and the processor's name."""
    load = os.getloadavg()[0]
    name = "unknown processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            name = next(line.partition(":")[2].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, load {load:.2f}"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print(f"| {' | '.join(header)} |")
    print(f"|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
