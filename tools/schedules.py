"""Solves the kernels by name on all machines of forgec's own, and writes what the package ships of it.

    python -m tools.schedules [MACHINE…]            writes forgec/schedule/solved/*.json, solving what is not there yet
    python -m tools.schedules [MACHINE…] --all      solves everything anew
    python -m tools.schedules [MACHINE…] --check    says what is missing or no longer asked for (exit code 1)

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
from forgec.schedule.report import main_phase

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


def usable(key: str, each: Wanted, machine: Machine) -> bool:
    """Whether the package has a schedule that the checker accepts, or says that there is none."""
    if key in store.without(machine.name):
        return True
    entry = store.shipped(machine.name).get(key)
    return entry is not None and bool(store.restored(entry, key, each.kernels, machine, LIMIT, []))


def stale(machine: Machine) -> list[str]:
    """What the package lacks for a machine, or has for questions that nobody asks any more."""
    asked = {store.key(each.kernels, machine, 1): each for each in wanted(machine) if not each.reason}
    problems = [
        f"{each.name} on {machine.name} has no stored schedule that is legal"
        for key, each in asked.items()
        if not usable(key, each, machine)
    ]
    left = [entry["kernel"] for key, entry in store.shipped(machine.name).items() if key not in asked]
    return problems + [f"{name} on {machine.name} is stored for other graphs" for name in left]


def solve(machine: Machine, anew: bool) -> None:
    """Write a machine's file, after each kernel, so that what was solved is not lost when a run ends early."""
    there, without = dict(store.shipped(machine.name)), dict(store.without(machine.name))
    entries: list[Mapping[str, Any]] = []
    missing: dict[str, str] = {}
    for each in wanted(machine):
        if each.reason:
            print(f"{each.name} on {machine.name}: {each.reason}")
            continue
        key = store.key(each.kernels, machine, 1)
        if not anew and usable(key, each, machine):
            if key in there:
                entries.append(there[key])
            else:
                missing[key] = without[key]
        else:
            entry, said = solved(key, each, machine)
            print(f"{each.name} on {machine.name}: {said}", flush=True)
            if entry:
                entries.append(entry)
            else:
                missing[key] = f"{each.name}: {said}"
        write(machine, entries, missing)


def solved(key: str, each: Wanted, machine: Machine) -> tuple[Mapping[str, Any] | None, str]:
    """The entry of a kernel, or None, and what to say of it."""
    try:
        answer = store.solve(each.kernels, machine, limit=LIMIT, cache=False)
    except ForgeError as caught:
        if caught.code not in NO_SCHEDULE:
            raise
        return None, caught.diagnostics[0].message
    best = answer.schedules[0]
    assert best.certificate is not None
    said = f"interval {main_phase(best).ii}, {best.certificate.status}, {best.certificate.solve_seconds:.1f} s"
    return {"kernel": each.name, **store.entry_of(answer.schedules, each.kernels, key, LIMIT)}, said


def write(machine: Machine, entries: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    """The file: a line for each schedule."""
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    text = f'{{"entries":[\n{lines}\n],"without":{json.dumps(missing, indent=1)}}}\n'
    (store.SHIPPED / f"{machine.name}.json").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Writes or checks the files of the machines named, or of all; returns the exit code."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    chosen = [machines.named(name) for name in names] or own_machines()
    if "--check" in arguments:
        problems = [problem for machine in chosen for problem in stale(machine)]
        for problem in problems:
            print(f"{problem}; run 'python -m tools.schedules'", file=sys.stderr)
        return int(bool(problems))
    store.SHIPPED.mkdir(exist_ok=True)
    for machine in chosen:
        solve(machine, "--all" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
