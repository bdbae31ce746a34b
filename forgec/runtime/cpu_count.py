"""How many threads this process should compute with: what its affinity mask and its control groups leave it, and
how many it may ask for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

from forgec.diagnostics import error

SYSTEM = Path("/sys")
CGROUPS = Path("/proc/self/cgroup")


def allowed_cpus() -> list[int]:
    """The processors that the scheduler may give this process."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_threads() -> int:
    """One thread for each core of the affinity mask (hardware threads of one core share its vector units), at most as
    many as the control groups' quota gives processors.
    """
    cores = {_core_of(cpu) for cpu in allowed_cpus()}
    quota = cgroup_quota()
    return max(len(cores) if quota is None else min(len(cores), ceil(quota)), 1)


def _core_of(cpu: int) -> str:
    """What is the same for hardware threads of one core."""
    try:
        return (SYSTEM / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return f"cpu {cpu}"


def cgroup_quota() -> float | None:
    """How many processors' time the control groups of this process may use together, None if there is no limit."""
    limits = [limit for folder in _folders() for limit in (_unified(folder), _legacy(folder)) if limit is not None]
    return min(limits, default=None)


def _folders() -> Iterator[Path]:
    """Where the limits of this process's control groups stand, of those that they are in as well. In a container the
    paths may be those of the host: then the root is the container's own group.
    """
    try:
        lines = CGROUPS.read_text().splitlines()
    except OSError:
        return
    root = SYSTEM / "fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (root, root / "unified") if not controllers else (root / controllers, root / "cpu"):
            folder = mount / path.lstrip("/")
            while True:
                yield folder
                if folder == mount:
                    break
                folder = folder.parent


def _unified(folder: Path) -> float | None:
    """Version 2: ``cpu.max`` holds a quota, or ``max``, and a period."""
    words = _words(folder / "cpu.max")
    return _share(*words) if len(words) == 2 else None


def _legacy(folder: Path) -> float | None:
    """Version 1: a file each; a quota of -1 is no limit."""
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return _share(quota[0], period[0]) if quota and period else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _share(quota: str, period: str) -> float | None:
    if not quota.isdecimal() or not period.isdecimal() or not int(period):
        return None
    return int(quota) / int(period)


MAX_THREADS = 4096
"""More than any machine computes with at once; each takes memory of its own."""


def check_threads(threads: Any) -> None:
    """FORGE-U005 unless it is None or a number from 1 to ``MAX_THREADS``."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise error("FORGE-U005", f"threads is {threads!r}, a number from 1 to {MAX_THREADS} is needed")
