"""Names of kernels for ``perf``: with ``FORGEC_PERF=1`` every image that is mapped is listed in ``/tmp/perf-PID.map``.

That is the file in which perf looks for the symbols of code that stands in no file (linux/tools/perf/Documentation/
jit-interface.txt): lines ``START SIZE NAME``, both numbers hexadecimal. perf asks it about anonymous memory only, so
that images are then mapped there and not from the artifact. A function reaches to the beginning of the next one that
the table names: loops that are functions of their own count for the one before them.
"""

from __future__ import annotations

import os
import warnings
from itertools import pairwise
from pathlib import Path

from forgec.runtime.kernel_table import KernelTable

VARIABLE = "FORGEC_PERF"
FOLDER = Path("/tmp")  # perf looks nowhere else


def is_wanted() -> bool:
    """True if the environment asks for it."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def path() -> Path:
    """The file of this process."""
    return FOLDER / f"perf-{os.getpid()}.map"


def lines(address: int, nbytes: int, table: KernelTable) -> list[str]:
    """The functions of an image that is mapped at ``address``, in the order in which they stand there."""
    starts = {kernel.offset: kernel.name for kernel in table.kernels}
    if table.driver is not None:
        starts |= {table.driver.run: "forgec_run", table.driver.work: "forgec_work", table.driver.copy: "forgec_copy"}
    places = [*sorted(starts), nbytes]
    return [f"{address + start:x} {end - start:x} {starts[start]} [{table.image}]" for start, end in pairwise(places)]


def add(address: int, nbytes: int, table: KernelTable) -> None:
    """Appends them. A file that cannot be written is a RuntimeWarning: it keeps no program from running."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW  # anyone may write to /tmp
        descriptor = os.open(path(), flags, 0o644)
        try:
            os.write(descriptor, "".join(f"{line}\n" for line in lines(address, nbytes, table)).encode())
        finally:
            os.close(descriptor)
    except OSError as reason:
        warnings.warn(f"{VARIABLE}: {path()} cannot be written: {reason.strerror}", RuntimeWarning, stacklevel=2)
