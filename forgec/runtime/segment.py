"""Launches of machine code that follow each other: one native call for all of them.

A launch runs on the team when it has enough work; else one thread runs it, and the others wait for the next one. What
is split, and into how many programs, follows from the kernel and its extents: the number of threads only says who runs
them. So results do not depend on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgec.diagnostics import (
    ZERO_DIVISOR,
    Diagnostic,
    DivisionByZeroError,
    ForgeError,
    Location,
    OutOfRangeError,
    error,
)
from forgec.runtime.driver import ALONE, Job, Record
from forgec.runtime.team import TEAM

if TYPE_CHECKING:
    from forgec.runtime.code_image import LoadedDriver
    from forgec.runtime.kernel_launch import Slots
    from forgec.runtime.kernels import Kernel

CHUNK_NS = 2_000
"""A thread takes programs for about so long at a time, which is long beside the step that gives them out."""
LONG_CHUNK_NS, CHUNKS = 20_000, 256
"""For so long where that leaves so many chunks, enough for all threads: memory is read and written faster in long rows.
"""
TOGETHER_NS = 10_000
"""A launch with less work than this is done before other threads are any help: barriers cost about 1 µs."""
CHUNKS_TOGETHER = 8
"""Programs that are best run together are so nevertheless in so many parts, which are for several threads."""
TEAM_NS = 50_000
"""With less work than this for all, the team is not woken: a thread that sleeps takes 5 to 50 µs to come."""


@dataclass(frozen=True, slots=True)
class KernelLaunch:
    """What a segment needs of a launch. ``position`` is its number in the entry."""

    kernel: Kernel
    address: int
    slots: Slots
    programs: int
    position: int
    place: Location | None


class Segment:
    """A row of launches, ready to run. ``failed`` is the position of the launch that failed last.

    ``threads``: how many to use, None for as many as the process computes with.
    """

    def __init__(self, driver: LoadedDriver, launches: Sequence[KernelLaunch], threads: int | None = None) -> None:
        self._driver = driver
        self._launches = [launch for launch in launches if launch.programs]
        self._threads = threads
        self.failed = launches[0].position
        self._records = (Record * len(self._launches))()
        chunks = [chunk_of(launch.kernel, launch.programs) for launch in self._launches]
        if sum(_work(launch) for launch, chunk in zip(self._launches, chunks, strict=True) if chunk) < TEAM_NS:
            chunks = [ALONE] * len(chunks)
        for record, launch, chunk in zip(self._records, self._launches, chunks, strict=True):
            record.function, record.programs, record.chunk = launch.address, launch.programs, chunk
            record.slots = ctypes.addressof(launch.slots.values)
        shared = [index for index, chunk in enumerate(chunks) if chunk]
        self._is_shared = bool(shared)
        begin, end = (shared[0], shared[-1] + 1) if shared else (0, 0)
        self._job = Job(ctypes.addressof(self._records), len(chunks), begin, end, 1)
        self._address = ctypes.addressof(self._job)

    def run(self) -> None:
        """One call. FORGE-R014 when a kernel's check fails."""
        if self._is_shared:
            threads = TEAM.threads() if self._threads is None else self._threads
            code = TEAM.run(self._driver, self._job, self._address, threads)
        else:
            code = self._driver.run(self._address)
        if code:
            launch = self._launches[self._job.failed]
            self.failed = launch.position
            raise failure(launch.kernel, code, launch.place)


def chunk_of(kernel: Kernel, programs: int) -> int:
    """How many programs of a launch a thread takes at least at a time; ``ALONE`` when one thread runs all of them."""
    if kernel.serial or programs * kernel.cost_ns < TOGETHER_NS:
        return ALONE
    together = min(kernel.together, programs // CHUNKS_TOGETHER)
    chunk = max(-(-CHUNK_NS // kernel.cost_ns), min(-(-LONG_CHUNK_NS // kernel.cost_ns), programs // CHUNKS), together)
    return chunk if chunk < programs else ALONE


def _work(launch: KernelLaunch) -> int:
    return launch.programs * launch.kernel.cost_ns


def failure(kernel: Kernel, code: int, place: Location | None) -> ForgeError:
    """What a code that a kernel returned means."""
    if 1 <= code <= len(kernel.checks):
        found = Diagnostic("FORGE-R014", kernel.checks[code - 1], place, (f"kernel '{kernel.name}'",))
        # What kernels check is indices, and what integers are divided by.
        return (DivisionByZeroError if found.message == ZERO_DIVISOR else OutOfRangeError)([found])
    message = f"kernel '{kernel.name}' returned {code}, and has {len(kernel.checks)} checks"
    return error("FORGE-X001", message, location=place)
