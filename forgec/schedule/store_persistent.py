"""Persistent schedules that a user has solved before: one file each beside those of loops, and trusted as little.

An entry holds its output tiles, which are compared with those that are asked for, and is checked by
``check_persistent.py``; what fails is dropped with a remark and solved anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.schedule import files, store
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent
from forgec.schedule.tile import Tile
from forgec.schedule.turn_bounds import unproved_turns


@dataclass(frozen=True)
class Answer:
    """A persistent schedule. ``origin``: ``solved``, or ``cached`` by this user."""

    schedule: Persistent
    origin: str
    remarks: tuple[Diagnostic, ...] = ()


def solve(
    tiles: Sequence[Tile], machine: Machine, *, limit: float = 60.0, cache: bool = True, folder: Path | None = None
) -> Answer:
    """The best persistent schedule: a stored one that the checker accepts, else solved and stored.

    Args:
        tiles: one output tile for each choice of tile.
        machine: what it runs on.
        limit: deterministic time for all of it.
        cache: whether to look for a stored one, and to store what is solved.
        folder: where they are stored; the cache folder unless told.

    Raises:
        ForgeError: as ``solve_persistent.persistent``.
    """
    remarks: list[Diagnostic] = []
    name, own = "", None
    if cache:
        question = {
            "version": store.VERSION,
            "machine": store.whole(store.without_words(machine)),
            "tiles": [store.whole(tile) for tile in tiles],
        }
        name, own = store.hashed(question), folder or store.schedules_folder()
        entry = store.read_entry(own, name, remarks)
        found = restored(entry, name, tiles, machine, limit, remarks) if entry is not None else None
        if found is not None:
            return Answer(found, "cached", tuple(remarks))
    from forgec.schedule.solve_persistent import persistent  # OR-tools take a third of a second to import

    schedule = persistent(tiles, machine, limit=limit)
    if own is not None:
        store.keep(own, name, {"key": name, "limit": limit, "persistent": files.to_values(schedule)})
    return Answer(schedule, "solved", tuple(remarks))


def restored(
    entry: Any, name: str, tiles: Sequence[Tile], machine: Machine, limit: float, remarks: list[Diagnostic]
) -> Persistent | None:
    """The schedule of an entry if it is legal; a remark says what is wrong with one that is not."""
    try:
        if entry["key"] != name:
            raise ValueError("it is the answer to another question")
        found = files.from_values(Persistent, entry["persistent"], "a stored schedule")
        enough = float(entry["limit"]) >= limit
        if found.machine != machine.name:
            raise ValueError(f"it is for machine {found.machine}, not {machine.name}")
        if found.certificate is None:
            raise ValueError("it has no certificate")
        if not found.placed or not any(same(found, tile) for tile in tiles):
            raise ValueError("it is of other tiles")
        broken = check_persistent(found, machine) or [*unproved_turns(found, machine)]
        if broken:
            raise ValueError(f"it breaks the rule on {broken[0].rule}: {broken[0].text}")
    except ForgeError as caught:
        remarks.append(store.dropped(caught.diagnostics[0].message, *caught.diagnostics[0].notes))
        return None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as caught:
        reason = str(caught) if type(caught) is ValueError else f"it is not what was written: {caught!r}"
        remarks.append(store.dropped(reason))
        return None
    return found if found.certificate.status.startswith("optimal") or enough else None


def same(schedule: Persistent, tile: Tile) -> bool:
    """Whether all output tiles of a turn are this one, but for names."""

    def names(each: Tile) -> tuple[list[str], list[str]]:
        graphs = [*each.graphs, each.links]
        return [op.name for graph in graphs for op in graph.ops], [v.name for graph in graphs for v in graph.values]

    ops, values = names(tile)
    for placed in schedule.placed:
        other_ops, other_values = names(placed.tile)
        if len(ops) != len(other_ops) or len(values) != len(other_values):
            return False
        called = dict(zip(ops, other_ops, strict=True)), dict(zip(values, other_values, strict=True))
        if tile.renamed(*called) != placed.tile:
            return False
    return True
