"""Solves the kernels by name on all machines of forgec's own, and writes what the package ships of it.

    python -m tools.schedules            writes forgec/schedule/solved/*.json, solving only what is not there yet
    python -m tools.schedules --all      solves everything anew
    python -m tools.schedules --check    says what is missing or no longer asked for; exit code 1 where something is

What a machine cannot run (FORGE-U010) or does not fit it (FORGE-S001) has no schedule; the file says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgec.diagnostics import ForgeError
from forgec.schedule import kernels, store
from forgec.schedule import machine as machines
from forgec.schedule.machine import Machine

LIMIT = 60.0
"""Deterministic time for each kernel: the default of the command line."""
NO_SCHEDULE = ("FORGE-U010", "FORGE-S001", "FORGE-S002")


@dataclass(frozen=True)
class Wanted:
    """A kernel at the sizes that it has unless told, or why the machine has none."""

    name: str
    kernels: store.Kernels = ()
    reason: str = ""


def own_machines() -> list[Machine]:
    """All machines that forgec knows by name."""
    return [machines.named(path.stem) for path in sorted(machines.FOLDER.glob("*.toml"))]


def wanted(machine: Machine) -> Iterator[Wanted]:
    """All kernels by name on a machine."""
    for name in kernels.NAMES:
        try:
            yield Wanted(name, kernels.named(name, machine))
        except ForgeError as caught:
            if caught.code not in NO_SCHEDULE:
                raise
            yield Wanted(name, reason=caught.diagnostics[0].message)


def stale(machine: Machine) -> list[str]:
    """What the package lacks for a machine, or has for questions that nobody asks any more."""
    there = dict(store.shipped(machine.name))
    without = dict(store.without(machine.name))
    problems = []
    for each in wanted(machine):
        if not each.reason:
            key = store.key(each.kernels, machine, 1)
            if there.pop(key, None) is None and without.pop(key, None) is None:
                problems.append(f"{each.name} on {machine.name} has no stored schedule")
    problems += [f"{entry['kernel']} on {machine.name} is stored for other graphs" for entry in there.values()]
    return problems


def solve(machine: Machine, anew: bool) -> None:
    """Write a machine's file, after each kernel, so that what was solved is not lost when a run ends early."""
    there: Mapping[str, Any] = {} if anew else store.shipped(machine.name)
    without: Mapping[str, str] = {} if anew else store.without(machine.name)
    entries, missing = [], {}
    for each in wanted(machine):
        if each.reason:
            print(f"{each.name} on {machine.name}: {each.reason}")
            continue
        key = store.key(each.kernels, machine, 1)
        if key in there:
            entries.append(there[key])
            write(machine, entries, missing)
            continue
        if key in without:
            missing[key] = without[key]
            write(machine, entries, missing)
            continue
        try:
            answer = store.solve(each.kernels, machine, limit=LIMIT, cache=False)
        except ForgeError as caught:
            if caught.code not in NO_SCHEDULE:
                raise
            missing[key] = f"{each.name}: {caught.diagnostics[0].message}"
            print(f"{each.name} on {machine.name}: {caught.diagnostics[0].message}")
            write(machine, entries, missing)
            continue
        entries.append({"kernel": each.name, **store.entry_of(answer.schedules, each.kernels, key, LIMIT)})
        write(machine, entries, missing)
        certificate = answer.schedules[0].certificate
        assert certificate is not None
        print(
            f"{each.name} on {machine.name}: interval {answer.schedules[0].phases[-1].ii}, {certificate.status}, "
            f"{certificate.solve_seconds:.1f} s",
            flush=True,
        )


def write(machine: Machine, entries: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    """The file: a line for each schedule."""
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    text = f'{{"entries":[\n{lines}\n],"without":{json.dumps(missing, indent=1)}}}\n'
    (store.SHIPPED / f"{machine.name}.json").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Writes or checks all files; returns the exit code."""
    if "--check" in arguments:
        problems = [problem for machine in own_machines() for problem in stale(machine)]
        for problem in problems:
            print(f"{problem}; run 'python -m tools.schedules'", file=sys.stderr)
        return int(bool(problems))
    store.SHIPPED.mkdir(exist_ok=True)
    for machine in own_machines():
        solve(machine, "--all" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
