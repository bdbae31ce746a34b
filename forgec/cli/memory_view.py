"""The memory of an entry point: its buffers, their places and lives, and how much is live at each launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgec.runtime.plan import Buffer, Entry, External, Output, Plan
from forgec.runtime.signature import Signature

if TYPE_CHECKING:
    from rich.console import Console

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 80


@dataclass(frozen=True)
class Row:
    """A register that owns memory. ``nbytes`` is a number, or a formula; ``origin`` is a line of the model."""

    register: int
    kind: str
    tensor: str
    nbytes: int | str
    offset: int | None
    first: int
    last: int
    op: str
    origin: str


def rows(plan: Plan, entry: Entry) -> list[Row]:
    """Buffers of the arena, results and tensors that ATen allocates, in the order in which they come alive."""
    signature = Signature(entry, plan.symbols)
    found = []
    for number, register in enumerate(entry.registers):
        if not isinstance(register, Buffer | Output | External):
            continue
        if isinstance(register, Output):
            first, last, offset = _first_write(entry, number), len(entry.launches), None
        else:
            first, last = register.first, register.last
            offset = register.offset if isinstance(register, Buffer) else None
        nbytes = register.nbytes if isinstance(register, Buffer) else register.spec.nbytes
        launch = entry.launches[first] if first < len(entry.launches) else None
        found.append(
            Row(
                register=number,
                kind=type(register).__name__.lower(),
                tensor=signature.describe_spec(register.spec),
                nbytes=nbytes if isinstance(nbytes, int) else str(nbytes),
                offset=offset,
                first=first,
                last=last,
                op=launch.op if launch else "",
                origin=str(plan.locations[launch.location]) if launch and launch.location >= 0 else "",
            )
        )
    return sorted(found, key=lambda row: (row.first, row.register))


def live_bytes(entry: Entry, found: list[Row]) -> list[int] | None:
    """Bytes alive during each launch; None when sizes depend on symbols."""
    if any(isinstance(row.nbytes, str) for row in found):
        return None
    live = [0] * len(entry.launches)
    for row in found:
        assert isinstance(row.nbytes, int)
        for launch in range(row.first, min(row.last, len(live))):
            live[launch] += row.nbytes
    return live


def as_data(plan: Plan, entry: Entry) -> dict[str, Any]:
    """JSON-compatible data."""
    found = rows(plan, entry)
    return {
        "entry": entry.name,
        "arena_bytes": entry.arena_bytes,
        "peak_bytes": entry.peak_bytes,
        "live_bytes": live_bytes(entry, found),
        "registers": [vars(row) for row in found],
    }


def show(out: Console, plan: Plan, entry: Entry) -> None:
    """Prints the registers as a table, and what is live at each launch as a chart."""
    from forgec.cli.inspect_view import escaped, size, table

    found = rows(plan, entry)
    out.print()
    arena = "sized at each call" if entry.arena_bytes is None else f"{entry.arena_bytes} bytes"
    out.print(escaped(f"memory of {entry.name}: arena {arena}"), style="bold")
    listing = table("register", "tensor", "bytes", "place", "live", "written by", "line of the model", right=("bytes",))
    for row in found:
        place = row.kind if row.kind != "buffer" else "arena" if row.offset is None else f"arena @{row.offset}"
        life = f"[{row.first}, {row.last})"
        cells = (f"%{row.register}", row.tensor, str(row.nbytes), place, life, row.op, row.origin)
        listing.add_row(*map(escaped, cells))
    out.print(listing)
    live = live_bytes(entry, found)
    if live:
        chart, width = _chart(live)
        scale = f"each column is {width} launches" if width > 1 else "one column for each launch"
        out.print(f"live bytes, at most {size(max(live))}; {scale}:")
        out.print(chart)


def _chart(live: list[int]) -> tuple[str, int]:
    """Bars of at most ``_COLUMNS`` columns, and how many launches each stands for (by its largest)."""
    width = -(-len(live) // _COLUMNS)
    tops = [max(live[start : start + width]) for start in range(0, len(live), width)]
    most = max(tops) or 1
    return "".join(_BARS[-(-top * (len(_BARS) - 1) // most)] for top in tops), width


def _first_write(entry: Entry, number: int) -> int:
    """The launch that first writes an output, in place or through a view."""
    views = {number} | {n for n, r in enumerate(entry.registers) if getattr(r, "base", None) == number}
    return next((i for i, launch in enumerate(entry.launches) if views & set(launch.writes)), len(entry.launches))
