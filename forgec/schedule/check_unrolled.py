"""Whether what was unrolled is legal, by the rules of ``schedule.py`` for each instance, none of them modulo anything.

Independent of the solver: no OR-tools, no code of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Group
from forgec.schedule.unrolled import Instance, Stored, Unrolled
from forgec.schedule.violation import Violation


def check_unrolled(
    found: Unrolled, groups: Sequence[Group], depths: Mapping[str, int], machine: Machine
) -> list[Violation]:
    """Violations of rules 1 to 4 and 6; memories (5), warps (7) and isolation (8) do not depend on times."""
    return [
        *streams(found, groups, machine),
        *units(found, machine),
        *waits(found, machine),
        *rings(found, depths, machine),
        *registers(found, groups, machine),
    ]


def peak(changes: list[tuple[int, int]]) -> tuple[int, int]:
    """The most of a sum of steps ``(time, change)``, and when it is first reached."""
    most, when, level = 0, 0, 0
    for time, change in sorted(changes):
        level += change
        if level > most:
            most, when = level, time
    return most, when


def said(instance: Instance) -> str:
    """An instance by name."""
    return f"{instance.op.name} in iteration {instance.iteration} of segment {instance.segment}"


def streams(found: Unrolled, groups: Sequence[Group], machine: Machine) -> Iterator[Violation]:
    """1: a group does one thing at a time."""
    for number, group in enumerate(groups):
        busy: list[tuple[int, int]] = []
        for each in found.instances:
            begin = each.start - each.gets * machine.handover.get
            end = each.start + each.op.issue + each.puts * machine.handover.put
            if each.group == number and begin < end:
                busy += [(begin, 1), (end, -1)]
        most, when = peak(busy)
        if most > 1:
            yield Violation("streams", f"{group.name} has {most} things to do at cycle {when}")


def units(found: Unrolled, machine: Machine) -> Iterator[Violation]:
    """2: no unit is held beyond its capacity."""
    held: dict[str, list[tuple[int, int]]] = {}
    for each in found.instances:
        for use in each.op.uses:
            if use.cycles:
                first = each.start + use.offset
                held.setdefault(use.unit, []).extend(((first, use.amount), (first + use.cycles, -use.amount)))
    for unit, changes in held.items():
        most, when = peak(changes)
        if most > machine.units[unit].capacity:
            yield Violation("units", f"{most} of {machine.units[unit].capacity} of {unit} are held at cycle {when}")


def waits(found: Unrolled, machine: Machine) -> Iterator[Violation]:
    """3: nothing starts before what it waits for is there."""
    for wait in found.waits:
        source, target = found.instances[wait.source], found.instances[wait.target]
        there = source.start + wait.delay
        if wait.value is not None:
            there += source.op.latency
        if source.group != target.group:
            there += machine.handover.latency
            if wait.value is not None and wait.value.memory == "register":
                if not wait.value.crossing:
                    yield Violation(
                        "dependences",
                        f"{wait.value.name} is in registers, and {said(target)} in another group reads it",
                    )
                copy = -(-wait.value.size // machine.handover.bytes_per_cycle)
                there += 2 * -(-copy // machine.round_to) * machine.round_to
        if target.start < there:
            yield Violation(
                "dependences",
                f"{said(target)} starts {there - target.start} cycles before {said(source)} has what it waits for",
            )


def life(found: Unrolled, stored: Stored) -> tuple[int, int]:
    """When storage is taken, and when the last reader is done with it."""
    producer = found.instances[stored.producer]
    ends = [producer.start + producer.op.latency]
    ends += [found.instances[reader].start + release for reader, release in stored.reads]
    return found.instances[stored.taker].start + stored.value.begin, max(ends)


def freed(found: Unrolled, stored: Stored, begin: int, machine: Machine) -> int:
    """When its buffer may be taken again: its producer is done, and its readers, who start before who takes it.

    ``begin``: of the value that takes it, which is that of another loop's graph where one loop follows another.
    """
    hop = machine.handover.latency if found.crosses(stored) else 0
    producer = found.instances[stored.producer]
    ends = [producer.start + producer.op.latency]
    for reader, release in stored.reads:
        ends.append(found.instances[reader].start + max(release, begin) + hop)
    return max(ends)


def rings(found: Unrolled, depths: Mapping[str, int], machine: Machine) -> Iterator[Violation]:
    """4: a buffer is not written again before its last reader is done with it."""
    for name, ring in found.rings.items():
        for old, new in zip(ring, ring[depths[name] :], strict=False):
            release = freed(found, old, new.value.begin, machine)
            acquire, _ = life(found, new)
            if acquire < release:
                writer = said(found.instances[new.taker])
                yield Violation("buffers", f"{writer} writes a buffer of {name} {release - acquire} cycles too early")


def registers(found: Unrolled, groups: Sequence[Group], machine: Machine) -> Iterator[Violation]:
    """6: what is live in registers fits the grants."""
    live: list[list[tuple[int, int]]] = [[] for _ in groups]
    for ring in found.rings.values():
        for stored in ring:
            acquire, release = life(found, stored)
            if stored.value.memory != "register" or acquire == release:
                continue
            homes = {found.instances[stored.producer].group}
            homes |= {found.instances[reader].group for reader, _ in stored.reads}
            for home in homes:
                live[home] += [(acquire, stored.value.size), (release, -stored.value.size)]
    for group, changes in zip(groups, live, strict=True):
        most, when = peak(changes)
        room = max(0, 4 * 32 * group.warps * (group.registers - machine.registers.reserve))
        if most > room:
            yield Violation(
                "registers", f"{group.name} has {most} bytes live in registers at cycle {when}, and room for {room}"
            )
