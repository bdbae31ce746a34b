"""``forgec schedule``: when each op of a kernel's loop runs, on which warps, in which buffers, and why not faster."""

from __future__ import annotations

import json as json_module
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgec.cli.errors import report, reporting
from forgec.cli.exit_codes import EXIT_DIAGNOSTICS

if TYPE_CHECKING:
    from forgec.schedule.graph import Graph
    from forgec.schedule.machine import Machine
    from forgec.schedule.persistent import Persistent
    from forgec.schedule.persistent_report import Programs
    from forgec.schedule.schedule import Schedule
    from forgec.schedule.tile import Tile

KERNEL_HELP = (
    "A kernel's name (attention-fwd, gemm, …; a wrong one lists them all), a .mlir file with a tile kernel (FILE:NAME "
    "where it has several), or a .json "
    "file with a dependence graph: one object, or a list with a graph (or a list of phases) for each choice of tile."
)
_SIZE = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=([0-9]+)")
DTYPE = "bf16"
"""Of named kernels, unless told."""
LIMIT = 60.0
"""Deterministic time, unless told."""
MOST = 1 << 40
"""The largest size of a kernel."""


def schedule(
    kernel: Annotated[str | None, typer.Argument(help=KERNEL_HELP, show_default=False)] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The machine: sm_90a, sm_100a, …, or a file in TOML or JSON.")
    ] = None,
    machine: Annotated[
        Path | None, typer.Option("--machine", metavar="FILE", help="A machine of your own; as --target FILE.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="KEY=N,…", help="Sizes of the kernel: m=4096,n=4096,k=4096. May be repeated."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help=f"Of a named kernel's operands.  [default: {DTYPE}]")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, max=100, help="How many of the best distinct schedules.")] = 1,
    time_limit: Annotated[
        float,
        typer.Option("--time-limit", metavar="S", min=0.0, help="Deterministic time, about seconds of one core."),
    ] = LIMIT,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take stored schedules, which are checked again.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--save", "-o", help="Write schedules with certificates here, as JSON.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with charts here.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Check what --save wrote, on its machine or on --target."),
    ] = None,
    persistent: Annotated[
        bool,
        typer.Option(
            "--persistent", help="Of a named kernel also the program that makes tile after tile, and their order."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the schedule as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Schedule a GPU kernel's loop: pipelining, warp groups, buffers and tiles at once, with a proof."""
    if (kernel is None) == (check is None):
        raise typer.BadParameter("give a kernel, or --check FILE")
    if not isfinite(time_limit):
        raise typer.BadParameter(f"{time_limit} is no number of seconds", param_hint="'--time-limit'")
    with reporting(as_json=json, debug=debug):
        name = _target(target, machine)
        if check is not None:
            given = {"--html": html, "--save": output, "--shape": shape, "--dtype": dtype, "--persistent": persistent}
            given |= {"--k": k != 1, "--time-limit": time_limit != LIMIT, "--no-cache": not cache}
            _refuse([option for option, value in given.items() if value])
            _check(check, name, as_json=json)
            return
        assert kernel is not None
        _apart(output, html, [kernel.partition(".mlir:")[0] + ".mlir" if ".mlir:" in kernel else kernel, name])
        question = Question(kernel, _machine(name), _sizes(shape or ()), dtype, k, time_limit, cache, persistent)
        _solve(question, output, html, as_json=json)


def _refuse(options: Sequence[str]) -> None:
    from forgec.diagnostics import error

    if options:
        raise error("FORGE-U005", f"--check takes no {' and no '.join(options)}", help="schedule the kernel for these")


def _apart(output: Path | None, html: Path | None, sources: Sequence[str | None]) -> None:
    """Raises FORGE-U004 where a file would be written over another one, or over one that is read."""
    from forgec.diagnostics import error

    for path in (output, html):
        for other in sources:
            if path is not None and other and path.is_file() and Path(other).is_file() and path.samefile(other):
                raise error("FORGE-U004", f"cannot write {path}: it is read as well")
    if output is not None and html is not None and output.resolve() == html.resolve():
        raise error("FORGE-U004", f"cannot write {output}: --save and --html name the same file")


def _target(target: str | None, machine: Path | None) -> str | None:
    from forgec.diagnostics import error

    if target is not None and machine is not None:
        raise error("FORGE-U005", "--target and --machine both name a machine", help="give one of them")
    return str(machine) if machine is not None else target


def _machine(name: str | None) -> Machine:
    from forgec.diagnostics import error
    from forgec.schedule import machine

    if name is None:
        own = ", ".join(sorted(path.stem for path in machine.FOLDER.glob("*.toml")))
        raise error("FORGE-U003", f"a machine is needed; there are {own}, and files in TOML or JSON", help="--target T")
    return machine.named(name)


def _sizes(shape: Sequence[str]) -> dict[str, int]:
    """``m=4096,n=4096`` as a dict. Raises FORGE-U005 for what is no size, and for a key that is given twice."""
    from forgec.diagnostics import error

    found: dict[str, int] = {}
    for item in (part.strip() for text in shape for part in text.split(",")):
        match = _SIZE.fullmatch(item)
        if match is None or int(match[2]) < 1:
            raise error(
                "FORGE-U005", f"--shape {item or '(nothing)'} is no KEY=N with a positive integer N", help="m=64,n=128"
            )
        if int(match[2]) > MOST:
            raise error("FORGE-U005", f"--shape {item} is beyond {MOST}")
        if match[1] in found:
            raise error("FORGE-U005", f"--shape gives {match[1]} twice")
        found[match[1]] = int(match[2])
    return found


def kernels_of(
    kernel: str, machine: Machine, sizes: Mapping[str, int], dtype: str | None = None
) -> Sequence[Sequence[Graph]]:
    """The loops of a kernel, by name or from a file, once for each choice of tile.

    Raises:
        ForgeError: FORGE-U010 for an unknown name (which lists those there are) or what a file should not hold,
            FORGE-U001 where it cannot be read, FORGE-U005 for options that files do not take; whatever the source
            of the kernel says of it.
    """
    from forgec.diagnostics import error
    from forgec.schedule import kernels

    if kernel in kernels.NAMES:
        return kernels.named(kernel, machine, sizes, dtype or DTYPE)
    path, _, function = kernel.rpartition(":") if ".mlir:" in kernel else (kernel, "", "")
    suffix = Path(path).suffix
    if suffix in (".mlir", ".json") and dtype is not None:
        raise error("FORGE-U005", f"--dtype is for kernels by name; {kernel} says what its values are")
    if suffix == ".mlir":
        from forgec.cli.files import check_readable
        from forgec.passes.schedule.extract import graphs

        check_readable(Path(path))
        return graphs(Path(path), machine, sizes, name=function or None)
    if suffix == ".json":
        if sizes:
            raise error("FORGE-U005", f"--shape is for kernels by name and tile kernels; {kernel} has its sizes")
        return _from_json(Path(kernel))
    import difflib

    close = difflib.get_close_matches(kernel, kernels.NAMES, n=1)
    raise error(
        "FORGE-U010",
        f"there is no kernel {kernel or 'without a name'}",
        notes=(f"there are {', '.join(kernels.NAMES)}, and files that end in .mlir or .json",),
        help=f"did you mean {close[0]}?" if close else None,
    )


def _from_json(path: Path) -> list[list[Graph]]:
    from forgec.cli.files import read_text
    from forgec.diagnostics import error
    from forgec.schedule import files
    from forgec.schedule.graph import Graph, check_extent

    try:
        values: Any = json_module.loads(read_text(str(path)))
    except (ValueError, RecursionError) as caught:
        raise error("FORGE-U010", f"{path} is not JSON: {caught}") from None
    choices = values if isinstance(values, list) else [values]
    if not choices or [] in choices:
        raise error("FORGE-U010", f"{path} holds no graph")

    def graph(value: Any, place: str) -> Graph:
        found = files.from_values(Graph, value, f"{path}{place}")
        check_extent(found)
        return found

    return [
        [graph(value, f", item {number}, phase {phase}") for phase, value in enumerate(choice)]
        if isinstance(choice, list)
        else [graph(choice, f", item {number}" if isinstance(values, list) else "")]
        for number, choice in enumerate(choices)
    ]


@dataclass(frozen=True)
class Question:
    """What is to be scheduled, and how hard it is tried."""

    kernel: str
    machine: Machine
    sizes: Mapping[str, int]
    dtype: str | None
    k: int
    limit: float
    cache: bool
    persistent: bool

    @property
    def title(self) -> str:
        """The kernel with what was said of it."""
        sizes = (f"{name}={size}" for name, size in self.sizes.items())
        return " ".join([Path(self.kernel).name, *sizes, *([self.dtype] if self.dtype else [])])


ORIGINS = {"shipped": "taken from the package, and checked", "cached": "taken from the cache, and checked"}


def _solve(question: Question, output: Path | None, html: Path | None, *, as_json: bool) -> None:
    from forgec.cli.files import check_writable, write_bytes
    from forgec.cli.progress import progress
    from forgec.schedule import store
    from forgec.schedule.report import as_data, as_text

    for path in (output, html):
        if path is not None:
            check_writable(path)
    machine, title, again = question.machine, question.title, None
    with progress(quiet=as_json or not sys.stderr.isatty()) as phase:
        phase(f"scheduling {question.kernel} for {machine.name}")
        tiles = _tiles(question) if question.persistent else []
        loops = kernels_of(question.kernel, machine, question.sizes, question.dtype)
        answer = store.solve(loops, machine, k=question.k, limit=question.limit, cache=question.cache)
        if tiles:
            from forgec.schedule import store_persistent

            phase(f"scheduling one tile of {question.kernel} after another")
            again = store_persistent.solve(tiles, machine, limit=question.limit, cache=question.cache)
    shown = _programs(question, again.schedule, answer.schedules[0]) if again else None
    if output is not None:
        from forgec.schedule.saved import content

        write_bytes(output, content(title, answer.schedules, machine, again.schedule if again else None))
    if html is not None:
        from forgec.schedule.obstacles import obstacles
        from forgec.schedule.page import page

        with progress(quiet=as_json or not sys.stderr.isatty()) as phase:
            phase("asking what stands in the way of smaller intervals")
            found = obstacles(answer.schedules[0], machine)
        write_bytes(html, page(answer.schedules, machine, title, shown, found).encode())
    remarks = [*answer.remarks, *(again.remarks if again else ())]
    if as_json:
        from forgec.schedule.persistent_report import grid_data, persistent_data

        more: dict[str, Any] = {
            "kernel": title,
            "target": machine.name,
            "origin": answer.origin,
            "remarks": [each.to_dict() for each in remarks],
        }
        facts = as_data(answer.schedules, machine, **more)
        if again and shown:
            facts["persistent"] = {"origin": again.origin, **persistent_data(shown)}
            facts["grid"] = grid_data(shown)
        print(json_module.dumps(facts, indent=2))
        return
    print(as_text(answer.schedules, machine, title, ORIGINS.get(answer.origin, "")))
    if again and shown:
        from forgec.schedule.persistent_report import persistent_text

        print("", persistent_text(shown, ORIGINS.get(again.origin, "")), sep="\n")
    if remarks:
        sys.stdout.flush()
        report(remarks)


def _tiles(question: Question) -> Sequence[Tile]:
    """One output tile of the kernel, for each choice of tile."""
    from forgec.diagnostics import error
    from forgec.schedule import kernels
    from forgec.schedule.kernels.tiles import tile_program

    if question.kernel not in kernels.NAMES:
        raise error(
            "FORGE-U005",
            f"--persistent is for kernels by name; {question.kernel} holds loops alone",
        )
    return tile_program(question.kernel, question.machine, question.sizes, question.dtype or DTYPE)


def _programs(question: Question, schedule: Persistent, loops: Schedule) -> Programs:
    """A persistent schedule with its simulation and the order of its tiles."""
    from forgec.schedule.kernels.grids import tile_grid
    from forgec.schedule.persistent_report import programs

    machine = question.machine
    grid = tile_grid(question.kernel, schedule, machine, question.sizes, question.dtype or DTYPE)
    return programs(schedule, machine, grid, loops)


def _check(path: Path, target: str | None, *, as_json: bool) -> None:
    from forgec.diagnostics import Diagnostic
    from forgec.schedule.saved import read, shipped_otherwise, verdicts

    saved = read(path, None if target is None else _machine(target))
    found = verdicts(saved, elsewhere=target is not None)
    other = shipped_otherwise(saved.machine)
    if saved.persistent is not None:
        from forgec.schedule.check_persistent import check_persistent
        from forgec.schedule.turn_bounds import unproved_turns

        turns = check_persistent(saved.persistent, saved.machine)
        turns = turns or [*unproved_turns(saved.persistent, saved.machine)]
    else:
        turns = []
    legal = not any(found) and not turns
    if as_json:
        schedules = [
            {
                "ii_cycles": schedule.phases[-1].ii,
                "status": schedule.certificate.status if schedule.certificate else None,
                "violations": [{"rule": each.rule, "text": each.text} for each in broken],
            }
            for schedule, broken in zip(saved.schedules, found, strict=True)
        ]
        facts: dict[str, Any] = {"legal": legal, "machine": saved.machine.name, "machine_differs": other}
        facts["schedules"] = schedules
        if saved.persistent is not None:
            facts["persistent"] = {
                "interval_cycles": saved.persistent.interval,
                "violations": [{"rule": each.rule, "text": each.text} for each in turns],
            }
        print(json_module.dumps(facts, indent=2))
    elif legal:
        count = len(found)
        what = "the schedule keeps" if count == 1 else f"all {count} schedules keep"
        if saved.persistent is not None:
            what = f"the {'schedule' if count == 1 else f'{count} schedules'} and the persistent program keep"
        made = {schedule.machine for schedule in saved.schedules} - {saved.machine.name}
        print(f"{path}: OK, {what} all rules on {saved.machine.name}{f' (made for {made.pop()})' if made else ''}")
        if other:
            print(f"note: {saved.machine.name} is what the file says, which differs from the one that forgec has")
    else:
        report(
            [
                Diagnostic(
                    "FORGE-S010",
                    f"{path}{place} is not legal on {saved.machine.name}",
                    notes=tuple(f"{each.rule}: {each.text}" for each in broken),
                )
                for place, broken in [
                    *((f", schedule {number}," * (len(found) > 1), row) for number, row in enumerate(found, 1)),
                    (", the persistent program,", turns),
                ]
                if broken
            ]
        )
    if not legal:
        raise typer.Exit(EXIT_DIAGNOSTICS)
