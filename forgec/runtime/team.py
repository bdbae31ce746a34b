"""The threads that kernels run on: one team for the whole process.

With an OpenMP library in the process (torch brings one) its threads are the team, else the team has workers of its own.
They are started when they are first needed, look for work for some microseconds after a job and then sleep. Callers
that need the team at the same time wait for each other; those that use one thread do not need it. A forked process
starts without workers, and starts its own: OpenMP's threads are lost there, and its library does not notice.
"""

from __future__ import annotations

import atexit
import ctypes
import platform
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from forgec.runtime import openmp
from forgec.runtime.cpu_count import allowed_cpus, default_threads
from forgec.runtime.driver import LINE_BYTES, MAX_THREADS, Job, Seat, TeamHead
from forgec.runtime.forking import renew_after_fork
from forgec.runtime.tensor_library import loaded_torch

if TYPE_CHECKING:
    from forgec.runtime.code_image import LoadedDriver
    from forgec.runtime.openmp import OpenMP

SPINS = 2000
"""How often a thread looks for what it waits for before it sleeps: 20 to 80 µs, as long as ``pause`` takes."""
FEW_SPINS = 50
"""The same where there are more threads than processors: another thread has to run."""
_FUTEX = {"x86_64": 202, "aarch64": 98}


class Team:
    """See the module. ``TEAM`` is the one of the process."""

    def __init__(self) -> None:
        self._renew()
        renew_after_fork(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._workers: Workers | None = None
        self._memory: TeamMemory | None = None
        self._openmp: OpenMP | None = None
        self._searched: bool | None = None
        self._default: int | None = None
        self._prepared = 0
        self._forked = False
        self._closed = False

    def after_fork(self) -> None:
        """Workers, locks and OpenMP's threads are the parent's."""
        self._renew()
        self._forked = True

    def threads(self) -> int:
        """How many threads a call uses that says nothing else: as many as torch's operations where there is torch."""
        torch = loaded_torch()
        if torch is not None:
            return torch.get_num_threads()
        if self._default is None:
            self._default = default_threads()
        return self._default

    def run(self, driver: LoadedDriver, job: Job, address: int, threads: int) -> int:
        """Runs the job at an address on so many threads; returns what ``forgec_run`` does."""
        mine = threading.get_ident()
        if threads < 2 or self._owner == mine:  # a signal's handler that calls a program while one runs in this thread
            job.threads = 1
            return driver.run(address)
        with self._lock:
            self._owner = mine
            try:
                job.threads = self._ready(driver, job, min(threads, MAX_THREADS))
                return driver.run(address)
            finally:
                self._owner = None

    def _ready(self, driver: LoadedDriver, job: Job, threads: int) -> int:
        """Makes the team ready for so many threads, and tells the job of it; returns how many there are."""
        memory = self._memory
        if memory is None:
            memory = self._memory = TeamMemory()
        job.team = memory.address
        found = self._found_openmp()
        if found is not None:
            job.parallel, job.thread_number, job.thread_count = found.parallel, found.thread_number, found.thread_count
        else:
            job.parallel = None
            threads = 1 + self._at_least(driver, memory, threads - 1)
        if threads != self._prepared:
            memory.head.spins = SPINS if threads <= len(allowed_cpus()) else FEW_SPINS
            self._prepared = threads
        return threads

    def _at_least(self, driver: LoadedDriver, memory: TeamMemory, workers: int) -> int:
        if self._closed:
            return 0
        if self._workers is None:
            self._workers = Workers(driver, memory)
            atexit.register(self.close)
        return self._workers.at_least(workers)

    def _found_openmp(self) -> OpenMP | None:
        """The library that the process has; looked for once, and again when torch has come."""
        if self._forked:
            return None
        with_torch = "torch" in sys.modules
        if self._openmp is None and self._searched is not with_torch:
            self._openmp, self._searched = openmp.find(), with_torch
        return self._openmp

    def close(self) -> None:
        """Ends the workers; calls after this use one thread."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, None
            if workers is not None:
                workers.end()


class TeamMemory:
    """The head and the seats, where no other data share their cache lines."""

    def __init__(self) -> None:
        size = ctypes.sizeof(TeamHead) + MAX_THREADS * ctypes.sizeof(Seat)
        self._bytes = ctypes.create_string_buffer(size + LINE_BYTES)
        start = -ctypes.addressof(self._bytes) % LINE_BYTES
        self.address = ctypes.addressof(self._bytes) + start
        self.head = TeamHead.from_buffer(self._bytes, start)
        self.seats = (Seat * MAX_THREADS).from_buffer(self._bytes, start + ctypes.sizeof(TeamHead))
        for index, seat in enumerate(self.seats):
            seat.index, seat.team = index, self.address
        self.head.syscall = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value
        self.head.futex = _FUTEX[platform.machine()]


class Workers:
    """Threads in the driver's loop, which know nothing of Python. They use the driver of the image that needed them
    first, and keep it."""

    def __init__(self, driver: LoadedDriver, memory: TeamMemory) -> None:
        self._driver = driver
        self._memory = memory
        self._handles: list[ctypes.c_ulong] = []
        self._cpus: dict[int, int] = {}
        self._free = -1
        self._libc: Any = ctypes.CDLL(None)

    def at_least(self, count: int) -> int:
        """Starts workers until there are so many, or until the system gives no more; returns how many there are, at
        most ``count``."""
        while len(self._handles) < count and self._start(len(self._handles) + 1, count + 1):
            pass
        if self._cpus:
            self._make_way(self._libc.sched_getcpu())
        return min(count, len(self._handles))

    def _make_way(self, cpu: int) -> None:
        """The worker on the caller's processor changes to the one that is free. Workers are bound and the caller, whose
        thread is the user's, is not; a scheduler that finds the other processors busy would leave both on one.
        """
        found = self._cpus.get(cpu)
        if found is not None:
            del self._cpus[cpu]
            self._bind(found, self._free)
            self._free = cpu

    def _start(self, index: int, threads: int) -> bool:
        handle = ctypes.c_ulong()
        seat = ctypes.c_void_p(ctypes.addressof(self._memory.seats[index]))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # Python's handlers are not for it
        try:
            code = self._libc.pthread_create(ctypes.byref(handle), None, ctypes.c_void_p(self._driver.work), seat)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if code:
            return False
        self._handles.append(handle)
        cpus = allowed_cpus()
        if threads == len(cpus):
            self._free = cpus[0]
            self._bind(index, cpus[index])
        return True

    def _bind(self, index: int, cpu: int) -> None:
        """Gives a worker a processor of its own, which is done where every one gets a thread. Where there are more,
        other processes may have chosen the same ones, and the scheduler knows better."""
        self._cpus[cpu] = index
        mask = (ctypes.c_uint8 * 128)()  # cpu_set_t
        if cpu < 8 * len(mask):
            mask[cpu // 8] = 1 << cpu % 8
            self._libc.pthread_setaffinity_np(self._handles[index - 1], ctypes.sizeof(mask), mask)

    def end(self) -> None:
        """Lets the workers return, and waits for them."""
        self._memory.head.quit = 1
        call, futex = self._libc.syscall, self._memory.head.futex
        for index, handle in enumerate(self._handles, 1):
            seat = self._memory.seats[index]
            seat.calls += 1
            call(
                ctypes.c_long(futex), ctypes.c_void_p(ctypes.addressof(seat)), ctypes.c_long(129), ctypes.c_long(1),
                None, None, ctypes.c_long(0),
            )  # fmt: skip
            self._libc.pthread_join(handle, None)
        self._handles.clear()


TEAM = Team()
