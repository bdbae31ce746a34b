"""How long kernels by name take to be scheduled, the choice of tile included, on each machine of forgec's own.

``python -m benchmarks schedule_kernels`` prints seconds of wall time on one worker, the least of several, for each
kernel at the sizes that it has unless told, and for attention with other heads and operands. What is proved is printed
where it is not ``optimal``. Nothing is read from stored schedules.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from benchmarks.measure import table
from forgec.diagnostics import ForgeError
from forgec.schedule import kernels
from forgec.schedule import machine as machines
from forgec.schedule.check import check
from forgec.schedule.solve import schedules

MACHINES = ("sm_80", "sm_90a", "sm_100a")
HEADS = (64, 96, 128, 192, 256)
ROUNDS = 2


def seconds(name: str, machine: machines.Machine, shape: Mapping[str, int], dtype: str) -> str:
    """The least time of some rounds, and the status if the schedule is not proved to be the best."""
    try:
        loops = kernels.named(name, machine, shape, dtype)
    except ForgeError:
        return ""
    times, status = [], ""
    for _ in range(ROUNDS):
        began = time.perf_counter()
        schedule = schedules(loops, machine)[0]
        times.append(time.perf_counter() - began)
        assert check(schedule, machine) == []
        assert schedule.certificate is not None
        status = schedule.certificate.status
    return f"{min(times):.2f}" + (f" ({status})" if status != "optimal" else "")


def main() -> None:
    """Print both tables."""
    found = [machines.named(name) for name in MACHINES]
    rows = [[name, *(seconds(name, each, {}, "bf16") for each in found)] for name in kernels.NAMES]
    table("Seconds to schedule kernels by name", ("kernel", *MACHINES), rows)
    rows = []
    for name in ("attention-fwd", "attention-fwd-causal"):
        for dtype in ("bf16", "f16", "fp8"):
            for each in found:
                row = [seconds(name, each, {"head": head}, dtype) for head in HEADS]
                if any(row):
                    rows.append([name, dtype, each.name, *row])
    table("Seconds to schedule attention, by head", ("kernel", "operands", "machine", *map(str, HEADS)), rows)


if __name__ == "__main__":
    main()
