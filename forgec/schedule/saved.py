"""Schedules with their certificates as files that say all that it takes to check them: graphs, machine and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from forgec.diagnostics import error
from forgec.schedule import files
from forgec.schedule import machine as machines
from forgec.schedule.check import Violation, check
from forgec.schedule.claims import false_claims, unproved
from forgec.schedule.graph import MOST_CYCLES, STRICT, check_extent
from forgec.schedule.machine import Machine, without_words
from forgec.schedule.persistent import Persistent
from forgec.schedule.schedule import Schedule

VERSION = 1
"""Of the files that are written. One of a later version may say what this does not know of."""


@dataclass(frozen=True)
class Saved:
    """Schedules of one kernel, best first, the persistent one if there is one, and the machine that they are for.

    ``version``: of the file; 0 of those from before there were versions.
    """

    __pydantic_config__ = STRICT
    machine: Machine
    schedules: tuple[Schedule, ...]
    kernel: str = ""
    persistent: Persistent | None = None
    version: int = 0


def content(
    kernel: str, schedules: Sequence[Schedule], machine: Machine, persistent: Persistent | None = None
) -> bytes:
    """What is written."""
    saved = Saved(machine, tuple(schedules), kernel, persistent, VERSION)
    return (json.dumps(files.to_values(saved), indent=1) + "\n").encode()


def read(path: Path, machine: Machine | None = None) -> Saved:
    """What was written, or one bare schedule. ``machine`` takes the place of the file's.

    Raises:
        ForgeError: FORGE-U001 where it cannot be read, FORGE-U010 where it holds no schedule, FORGE-U003 where a bare
            schedule is for a machine that is a file.
    """
    text = files.text_of(path)
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as caught:
        raise error("FORGE-U010", f"{path} is not JSON: {caught}") from None
    if isinstance(values, dict) and "phases" in values:
        schedule = files.from_values(Schedule, values, str(path))
        check_extents(schedule)
        return Saved(machine or machines.named(schedule.machine), (schedule,))
    version = values.get("version", 0) if isinstance(values, dict) else 0
    if isinstance(version, int) and version > VERSION:
        raise error(
            "FORGE-U010", f"{path} is of version {version}, and this forgec reads files up to version {VERSION}"
        )
    saved = files.from_values(Saved, values, str(path), "file that --save writes")
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
    """What ``check`` finds, and what a legal schedule says of itself and is not so.

    On a machine other than its own a schedule is only asked to be legal: its certificate speaks of that one.
    """
    found = check(schedule, machine)
    return found if found or schedule.machine != machine.name else false_claims(schedule, machine)


def verdicts(saved: Saved, *, elsewhere: bool = False) -> list[list[Violation]]:
    """What is wrong with each of the schedules of a file: violations, and of the best one what is not proved.

    ``elsewhere``: on another machine than the file's, on which they are asked to be legal alone.
    """
    found = [violations(schedule, saved.machine) for schedule in saved.schedules]
    for schedule, row in zip(saved.schedules, found, strict=True):
        if not elsewhere and schedule.machine != saved.machine.name:
            text = f"it is for machine {schedule.machine}, and the machine of the file is {saved.machine.name}"
            row.append(Violation("structure", text))
    for (one, other), row in zip(pairwise(saved.schedules), found[1:], strict=True):
        if one.phases and other.phases and other.cost < one.cost:
            row.append(Violation("certificate", "it costs less than the one before it, and the best comes first"))
    if not found[0] and saved.schedules[0].machine == saved.machine.name:
        found[0] += unproved(saved.schedules[0], saved.machine)
    return found


def shipped_otherwise(machine: Machine) -> bool:
    """Whether a machine has the name of one of forgec's own, and other numbers."""
    path = machines.FOLDER / f"{machine.name}.toml"
    return path.is_file() and without_words(machines.named(machine.name)) != without_words(machine)
