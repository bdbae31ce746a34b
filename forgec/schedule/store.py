"""Solved schedules, found by what they were solved from: those that come with the package, and a user's own.

An entry is named by the hash of all graphs, the machine, the options and ``VERSION``, and leaves out the graphs, which
whoever asks has at hand. Nothing that is read is believed: a schedule is put together with the graphs that are asked
for and checked by ``check.py`` on the machine that is asked for. What fails, or cannot be read, is dropped with a
remark, removed if it is the user's, and solved anew.

The package's are one file for each machine (``solved/*.json``, written by ``python -m tools.schedules``); a user's are
one file each in ``schedules`` of the cache folder (``FORGEC_CACHE_DIR`` names another one).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.runtime.replacing_file import ReplacingFile
from forgec.schedule import files
from forgec.schedule.claims import extents, unproved
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine, without_words
from forgec.schedule.saved import violations
from forgec.schedule.schedule import Schedule

VERSION = 3
"""Of the model: to be raised where the solver's answers to the same question change."""
SHIPPED = Path(__file__).parent / "solved"
MOST_ENTRIES = 2000
"""Of a user's folder, of about 10 kB each: the ones written first go."""

Kernels = Sequence[Sequence[Graph]]


@dataclass(frozen=True)
class Answer:
    """Schedules, best first. ``origin``: ``solved``, ``shipped`` with the package, ``cached`` by this user."""

    schedules: list[Schedule]
    origin: str
    remarks: tuple[Diagnostic, ...] = ()


def solve(
    kernels: Kernels,
    machine: Machine,
    *,
    k: int = 1,
    limit: float = 60.0,
    cache: bool = True,
    folder: Path | None = None,
) -> Answer:
    """The ``k`` best schedules: stored ones that the checker accepts, else solved and stored.

    Args:
        kernels: the phases of the kernel at each choice of tile, as of ``solve.schedules``.
        machine: what they run on.
        k: how many.
        limit: deterministic time. A stored answer that a limit cut short is taken only if it had as much.
        cache: whether to look among stored ones, and to store what is solved.
        folder: of the user's own; the cache folder unless told.

    Raises:
        ForgeError: as ``solve.schedules``.
    """
    remarks: list[Diagnostic] = []
    name, own = "", None
    if cache:
        name, own = key(kernels, machine, k), folder or schedules_folder()
        for origin in ("shipped", "cached"):
            entry = shipped(machine.name).get(name) if origin == "shipped" else read_entry(own, name, remarks)
            found = restored(entry, name, kernels, machine, limit, remarks) if entry is not None else None
            if found:
                return Answer(found, origin, tuple(remarks))
    from forgec.schedule import solve as solver  # OR-tools take a third of a second to import

    found = solver.schedules(kernels, machine, k=k, limit=limit)
    if own is not None and all(choice_of(each, kernels) is not None for each in found):
        keep(own, name, entry_of(found, kernels, name, limit))
    return Answer(found, "solved", tuple(remarks))


# Keys


def key(kernels: Kernels, machine: Machine, k: int) -> str:
    """The hash of everything that the answer depends on, but for the time limit."""
    question = {
        "version": VERSION,
        "machine": whole(without_words(machine)),
        "kernels": [[whole(graph) for graph in kernel] for kernel in kernels],
        "k": k,
    }
    return hashed(question)


def hashed(question: Mapping[str, Any]) -> str:
    """The name of an entry that answers a question."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def whole(item: Any) -> Any:
    """A dataclass as JSON values with its defaults: another default is another question."""
    return files.adapter(type(item)).dump_python(item, mode="json")


# Entries


def entry_of(schedules: Sequence[Schedule], kernels: Kernels, name: str, limit: float) -> dict[str, Any]:
    """What is stored: schedules as JSON values, with the number of the tile in place of its graphs."""
    return {"key": name, "limit": limit, "schedules": [packed(schedule, kernels) for schedule in schedules]}


def packed(schedule: Schedule, kernels: Kernels) -> dict[str, Any]:
    """A schedule without its graphs, which are those of ``kernels[choice]``."""
    values = files.to_values(schedule)
    values["choice"] = choice_of(schedule, kernels)
    for phase in values["phases"]:
        del phase["graph"]
    stated = values.get("certificate", {})
    if stated.get("alternatives"):
        stated["alternatives"] = columns(stated["alternatives"])
    return values


def choice_of(schedule: Schedule, kernels: Kernels) -> int | None:
    """The number of the tile that a schedule's graphs are of."""
    graphs = [phase.graph for phase in schedule.phases]
    return next((number for number, kernel in enumerate(kernels) if list(kernel) == graphs), None)


def unpacked(values: Mapping[str, Any], kernels: Kernels) -> Schedule:
    """The schedule again. What does not fit together raises an error of any kind."""
    rest = dict(values)
    graphs = kernels[int(rest.pop("choice"))]
    rest["phases"] = [{**phase, "graph": graph} for phase, graph in zip(rest["phases"], graphs, strict=True)]
    stated = rest.get("certificate")
    if stated and stated.get("alternatives"):
        rest["certificate"] = {**stated, "alternatives": rows(stated["alternatives"])}
    return files.from_values(Schedule, rest, "a stored schedule")


def columns(table: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns by name, which are half as long as text; None where a row lacks one."""
    names = dict.fromkeys(name for row in table for name in row)
    return {name: [row.get(name) for row in table] for name in names}


def rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows again."""
    cells = zip(*table.values(), strict=True)
    return [{name: cell for name, cell in zip(table, row, strict=True) if cell is not None} for row in cells]


def restored(
    entry: Any, name: str, kernels: Kernels, machine: Machine, limit: float, remarks: list[Diagnostic]
) -> list[Schedule] | None:
    """The schedules of an entry if all are legal; a remark says what is wrong with one that is not."""
    try:
        if entry["key"] != name:
            raise ValueError("it is the answer to another question")
        found = [unpacked(values, kernels) for values in entry["schedules"]]
        if not found:
            raise ValueError("it holds no schedule")
        enough = float(entry["limit"]) >= limit
        for schedule in found:
            doubt(schedule, machine)
        told = [extents(row) for row in found[0].certificate.alternatives] if found[0].certificate else []
        if told and told != [dict(kernel[0].tile) for kernel in kernels]:
            raise ValueError("its tiles are not those of the kernel")
        for each in unproved(found[0], machine):
            raise ValueError(f"its {each.rule} is wrong: {each.text}")
    except ForgeError as caught:
        remarks.append(dropped(caught.diagnostics[0].message, *caught.diagnostics[0].notes))
        return None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as caught:
        reason = str(caught) if type(caught) is ValueError else f"it is not what was written: {caught!r}"
        remarks.append(dropped(reason))
        return None
    proved = all(each.certificate is not None and each.certificate.status == "optimal" for each in found)
    return found if proved or enough else None


def doubt(schedule: Schedule, machine: Machine) -> None:
    """Raise ValueError, with the reason, where a schedule is not a legal one on this machine."""
    if schedule.machine != machine.name:
        raise ValueError(f"it is for machine {schedule.machine}, not {machine.name}")
    if schedule.certificate is None:
        raise ValueError("it has no certificate")
    found = violations(schedule, machine)
    if found:
        more = f", and {len(found) - 1} more" * (len(found) > 1)
        raise ValueError(f"it breaks the rule on {found[0].rule}: {found[0].text}{more}")


def dropped(reason: str, *notes: str) -> Diagnostic:
    """The remark for an entry that is not used."""
    return Diagnostic(
        "FORGE-S011", f"a stored schedule is dropped and solved anew: {reason}", notes=notes, severity="remark"
    )


# Where they are


def shipped(machine: str) -> Mapping[str, Any]:
    """The package's entries for a machine by their keys."""
    return _file(machine)[0]


def without(machine: str) -> Mapping[str, str]:
    """By key, which kernels have no schedule on a machine, and why."""
    return _file(machine)[1]


@lru_cache(maxsize=4)
def _file(machine: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    path = {path.stem: path for path in SHIPPED.glob("*.json")}.get(machine)
    if path is None:
        return {}, {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {entry["key"]: entry for entry in content["entries"]}, dict(content["without"])
    except (OSError, ValueError, KeyError, TypeError):  # an installation that is damaged still solves
        return {}, {}


def schedules_folder() -> Path:
    """``schedules`` in ``FORGEC_CACHE_DIR``, else in the user's cache folder."""
    named = os.environ.get("FORGEC_CACHE_DIR")
    if named:
        return Path(named) / "schedules"
    from platformdirs import user_cache_path

    return user_cache_path("forgec") / "schedules"


def read_entry(folder: Path, name: str, remarks: list[Diagnostic]) -> Any:
    """A user's entry, or None; one that is no JSON is dropped with a remark."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError):
        remarks.append(dropped("it is not JSON"))
        return None


def keep(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Store an entry, as far as the disk allows it, in place of any that was there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ReplacingFile(folder / f"{name}.json") as file:
            file.write(json.dumps(entry, separators=(",", ":")).encode())
    except (OSError, ForgeError):
        return
    with contextlib.suppress(OSError):
        entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in entries[: len(entries) - MOST_ENTRIES if len(entries) > MOST_ENTRIES else 0]:
            path.unlink()


def clear(folder: Path | None = None) -> int:
    """Remove a user's entries; how many there were."""
    removed = 0
    for path in (schedules_folder() if folder is None else folder).glob("*.json"):
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed
