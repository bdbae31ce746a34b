"""Schedules with their certificates as files that say all that it takes to check them: graphs, machine and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgec.diagnostics import error
from forgec.schedule import files
from forgec.schedule import machine as machines
from forgec.schedule.bounds import lower_bounds, with_most_warps
from forgec.schedule.check import Violation, check
from forgec.schedule.graph import MOST_CYCLES, STRICT, check_extent
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent
from forgec.schedule.schedule import Schedule


@dataclass(frozen=True)
class Saved:
    """Schedules of one kernel, best first, the persistent one if there is one, and the machine that they are for."""

    __pydantic_config__ = STRICT
    machine: Machine
    schedules: tuple[Schedule, ...]
    kernel: str = ""
    persistent: Persistent | None = None


def content(
    kernel: str, schedules: Sequence[Schedule], machine: Machine, persistent: Persistent | None = None
) -> bytes:
    """What is written."""
    saved = Saved(machine, tuple(schedules), kernel, persistent)
    return (json.dumps(files.to_values(saved), indent=1) + "\n").encode()


def read(path: Path, machine: Machine | None = None) -> Saved:
    """What was written, or one bare schedule. ``machine`` takes the place of the file's.

    Raises:
        ForgeError: FORGE-U001 where it cannot be read, FORGE-U010 where it holds no schedule, FORGE-U003 where a bare
            schedule is for a machine that is a file.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as caught:
        raise error("FORGE-U001", f"{path} cannot be read: {caught}") from None
    except (ValueError, RecursionError) as caught:
        raise error("FORGE-U010", f"{path} is not JSON: {caught}") from None
    if isinstance(values, dict) and "phases" in values:
        schedule = files.from_values(Schedule, values, str(path))
        check_extents(schedule)
        return Saved(machine or machines.named(schedule.machine), (schedule,))
    saved = files.from_values(Saved, values, str(path))
    if not saved.schedules:
        raise error("FORGE-U010", f"{path} holds no schedule")
    for schedule in saved.schedules:
        check_extents(schedule)
    return saved if machine is None else replace(saved, machine=machine)


def check_extents(schedule: Schedule) -> None:
    """Raise FORGE-U010 where numbers are beyond what is checked cycle by cycle."""
    for phase in schedule.phases:
        check_extent(phase.graph)
        if max([phase.ii, *phase.starts.values()]) > MOST_CYCLES:
            raise error("FORGE-U010", f"the schedule of {phase.graph.name} has a time beyond {MOST_CYCLES} cycles")


def violations(schedule: Schedule, machine: Machine) -> list[Violation]:
    """What ``check`` finds, and whether the bounds of the certificate are those of the graph.

    On a machine other than its own a schedule is only asked to be legal: its certificate speaks of that one.
    """
    found = check(schedule, machine)
    stated = schedule.certificate
    if stated is not None and schedule.machine == machine.name and not found:
        # Those of the last phase, as of each loop; an op may be in a group with as many warps as any phase needs.
        bounds = lower_bounds(with_most_warps([phase.graph for phase in schedule.phases])[-1], machine)
        if stated.bounds != bounds:
            text = f"its largest bound is {bounds[0].cycles} cycles by {bounds[0].name}, or smaller ones differ"
            found.append(Violation("certificate", text))
    return found


STATUSES = ("optimal", "feasible", "timeout")


def unproved(schedule: Schedule) -> list[Violation]:
    """Where the best schedule of a kernel claims more than its certificate says was proved.

    An interval is the least if every smaller one, down to the largest bound, was refuted; this is known of the best
    schedule alone, and where there is one loop: of several, what is least is a sum.
    """
    stated = schedule.certificate
    if stated is None or not schedule.phases:
        return []
    last = schedule.phases[-1]
    if stated.status not in STATUSES:
        return [Violation("certificate", f"its status {stated.status} is none of {', '.join(STATUSES)}")]
    if stated.status == "timeout":
        return []
    found: list[Violation] = []
    if stated.undecided:
        found.append(
            Violation(
                "certificate", f"it is called {stated.status}, and {len(stated.undecided)} intervals are undecided"
            )
        )
    if stated.quantum < 1:
        return [*found, Violation("certificate", f"its times are multiples of {stated.quantum} cycles")]
    times = [time for phase in schedule.phases for time in (phase.ii, *phase.starts.values())]
    if any(time % stated.quantum for time in times):
        text = f"its times are said to be multiples of {stated.quantum} cycles, and are not"
        return [*found, Violation("certificate", text)]
    # Durations are rounded up to multiples of the quantum.
    rounded = sum(
        max(phase.starts[op.name] + -(-op.span // stated.quantum) * stated.quantum for op in phase.graph.ops)
        for phase in schedule.phases
    )
    if stated.least_length > rounded:
        text = f"no length below {stated.least_length} is said to be possible, and this schedule has {rounded}"
        found.append(Violation("certificate", text))
    if len(schedule.phases) == 1:
        least = max((bound.cycles for bound in stated.bounds), default=1)
        refuted = set(stated.refuted)
        first = -(-least // stated.quantum) * stated.quantum
        still = next((each for each in range(first, last.ii, stated.quantum) if each not in refuted), None)
        if still is not None:
            found.append(
                Violation("certificate", f"it is called {stated.status}, and the interval {still} is not refuted")
            )
        if stated.status == "optimal" and stated.least_length < last.length:
            text = (
                f"it is called optimal, is {last.length} cycles long, and no less than {stated.least_length} is proved"
            )
            found.append(Violation("certificate", text))
    return found
