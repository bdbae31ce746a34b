"""The driver of an image: machine code that runs a row of launches, on one thread or on a team of them.

What stands here is the interface: where the driver's functions are, and the memory that Python and they share (the code
is ``backends/cpu/driver.py``). ``i32 forgec_run(ptr job)`` runs the launches of a ``Job`` in order and returns 0, or
what the first program returned that failed, whose record is then ``job.failed``. ``ptr forgec_work(ptr seat)`` is what
a worker's thread runs: it waits for work at its seat in a team until the team is told to quit. ``forgec_copy`` copies
within a row of launches (``native_copy``).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

ABI = 2
"""The version of this interface. Images of other versions cannot share a team."""
RUN, WORK, COPY = "forgec_run", "forgec_work", "forgec_copy"
MAX_THREADS = 256
ALONE = 0
"""The chunk of a launch that one thread runs."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Where the functions begin in the image."""

    run: int
    work: int
    copy: int
    abi: int = ABI


class Record(ctypes.Structure):
    """One launch: the kernel, its arguments, and how many programs a thread takes at least at a time (``ALONE``)."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("programs", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
    )


class Job(ctypes.Structure):
    """A row of ``count`` launches. The team is there for those from ``begin`` to ``end``; with fewer than two
    ``threads`` it is not needed. Functions of OpenMP are 0 where the team has workers of its own.
    """

    _fields_ = (
        ("records", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("begin", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("team", ctypes.c_void_p),
        ("parallel", ctypes.c_void_p),
        ("thread_number", ctypes.c_void_p),
        ("thread_count", ctypes.c_void_p),
        ("failed", ctypes.c_int64),
    )


class Seat(ctypes.Structure):
    """What a team keeps for one of its threads. Each group of fields has a cache line of its own."""

    _fields_ = (
        ("calls", ctypes.c_int32),  # counts the jobs that this thread was called to; a futex
        ("sleeping", ctypes.c_int32),
        ("index", ctypes.c_int64),
        ("team", ctypes.c_void_p),
        ("_line0", ctypes.c_char * 40),
        ("even", ctypes.c_int64),  # programs that are taken of this thread's share, in every second launch
        ("_line1", ctypes.c_char * 56),
        ("odd", ctypes.c_int64),  # and in the others
        ("_line2", ctypes.c_char * 56),
        ("failed_at", ctypes.c_int64),
        ("failed_record", ctypes.c_int64),
        ("code", ctypes.c_int32),
        ("_line3", ctypes.c_char * 44),
    )


class TeamHead(ctypes.Structure):
    """What the threads of a team share; the seats follow. It begins at a cache line."""

    _fields_ = (
        ("arrived", ctypes.c_int32),
        ("_line0", ctypes.c_char * 60),
        ("barriers", ctypes.c_int32),  # counts those that all threads have passed; a futex
        ("sleeping", ctypes.c_int32),
        ("_line1", ctypes.c_char * 56),
        ("job", ctypes.c_void_p),
        ("threads", ctypes.c_int64),
        ("failed", ctypes.c_int32),  # 0, or one more than the number of the launch that failed
        ("quit", ctypes.c_int32),
        ("_line2", ctypes.c_char * 40),
        ("syscall", ctypes.c_void_p),  # the C library's function
        ("futex", ctypes.c_int64),  # the number of the system call
        ("spins", ctypes.c_int64),  # how often a thread looks before it sleeps
        ("_line3", ctypes.c_char * 40),
    )


LINE_BYTES = 64
assert ctypes.sizeof(Seat) == ctypes.sizeof(TeamHead) == 4 * LINE_BYTES
