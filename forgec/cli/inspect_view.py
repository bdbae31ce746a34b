"""An artifact's summary, as tables."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from forgec.runtime.artifact import Artifact
from forgec.runtime.binding import likely, peak_of
from forgec.runtime.control import is_control
from forgec.runtime.extents import symbol_sources
from forgec.runtime.plan import Entry, Plan
from forgec.runtime.signature import Signature
from forgec.runtime.symbolic import free_symbols

PLAIN_WIDTH = 140
"""Columns where the output is no terminal."""
SHOWN_LINES = 3
"""Lines of the user's model that are named for each fallback; the rest is counted."""


class _Console(Console):
    """A console that leaves a closed pipe to the command, whose exit code says so; rich would end with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output: as wide as the terminal, or of a fixed width in a file or a pipe."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in ``right`` are aligned to the right."""
    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result


def size(nbytes: int) -> str:
    """Bytes for people: ``4.7 MB``, powers of a thousand."""
    if nbytes < 1000:
        return f"{nbytes} B"
    value, units = nbytes / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 100 else f"{value:.0f} {units[0]}"


def show(out: Console, artifact: Artifact) -> None:
    """Prints the summary: provenance, entry points, launches, fallbacks and memory."""
    manifest, report = artifact.manifest, artifact.report
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(artifact, manifest, report):
        facts.add_row(f"[bold]{name}", escaped(value))
    out.print(facts)
    for entry, described in zip(artifact.plan.public, manifest["entries"], strict=True):
        _show_entry(out, artifact.plan, entry, described)
    _show_fallbacks(out, report.get("fallbacks", []))


def _facts(artifact: Artifact, manifest: dict[str, Any], report: dict[str, Any]) -> list[tuple[str, str]]:
    producer = ", ".join(f"{name} {version}" for name, version in manifest["producer"].items())
    weights = manifest["weights"]
    place = f" in {weights['file']}" if weights["file"] else ""
    facts = [
        ("artifact", str(artifact.path)),
        ("format", f"version {manifest['format_version']}, written by {producer}"),
        ("target", manifest["target"]),
        ("pipeline", manifest["pipeline"] or "(no passes)"),
        ("weights", f"{size(weights['bytes'])}{place}"),
    ]
    if manifest.get("precision", "float32") != "float32":
        facts.append(("precision", f"factors of products are rounded to {manifest['precision']}"))
    if artifact.images:
        tables = [image.table for image in artifact.images]
        each = [" with ".join(filter(None, [table.isa, ", ".join(table.features)])) for table in tables]
        code = size(sum(len(image.code) for image in artifact.images))
        facts.append(("kernels", f"{len(tables[0].kernels)} for {' and '.join(each)}, {code}{_calls(report)}"))
    if "ops_captured" in report:
        counts = f"{report['ops_captured']} captured, {report['ops_optimized']} after the passes"
        facts.append(("ops", f"{counts} (nodes: ops that compute)"))
    for entry in artifact.plan.public:
        facts.append((f"peak memory of {entry.name}", _peak(artifact.plan, entry, report)))
    ranges = [
        f"{symbol.label or symbol.name} in [{symbol.minimum}, {'∞' if symbol.maximum is None else symbol.maximum}]"
        for symbol in artifact.plan.symbols
    ]
    return [*facts, ("extents", ", ".join(ranges))] if ranges else facts


def _calls(report: dict[str, Any]) -> str:
    if "kernel_calls" not in report:
        return ""
    others = report["calls"] - report["kernel_calls"]
    return f"; {report['kernel_calls']} launches of them, {others} calls of ATen"


def _peak(plan: Plan, entry: Entry, report: dict[str, Any]) -> str:
    values = {s.name: report.get("bindings", {}).get(s.name, s.maximum) for s in plan.symbols}
    if None in values.values():
        return "depends on the extents, which have no bound"
    peak = peak_of(entry, likely(entry, values), entries={e.name: e for e in plan.entries}).total_bytes
    labels = ", ".join(f"{s.label or s.name} = {values[s.name]}" for s in plan.symbols)
    naive = report.get("peak_bytes_naive") if len(plan.public) == 1 else None
    saved = f", {1 - peak / naive:.0%} less than with a buffer for each value" if naive and peak <= naive else ""
    return f"{size(peak)}{f' for {labels}' if labels else ''}{saved}"


def _show_entry(out: Console, plan: Plan, entry: Entry, described: dict[str, Any]) -> None:
    out.print()
    out.print(escaped(f"entry {entry.name}{described['call']}"), style="bold")
    signature = Signature(entry, plan.symbols)
    rows = table("", "name", "value")
    for item in described["inputs"]:
        rows.add_row("input", escaped(item["name"]), escaped(item["value"]))
    for index, leaf in enumerate(entry.outputs):
        rows.add_row("output", str(index), escaped(signature.describe_leaf(leaf)))
    out.print(rows)
    counts: dict[str, int] = {}
    parts = [entry, *(e for e in plan.entries if e.private and len(plan.public) == 1)]
    for launch in (launch for part in parts for launch in part.launches):
        counts[launch.op] = counts.get(launch.op, 0) + 1
    steps = sum(counts.pop(op) for op in [*counts] if is_control(op))
    inside = f" in {len(parts)} parts (branches, loops, segments)" if len(parts) > 1 else ""
    between = f", {steps} step{'s' * (steps != 1)} of control" if steps else ""
    out.print(f"{sum(counts.values())} launches of {len(counts)} operations{inside}{between}:")
    rows = table("count", "operation", right=("count",))
    for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        rows.add_row(str(count), escaped(op))
    out.print(rows)
    for line in cuts(plan, parts):
        out.print(escaped(line))


def cuts(plan: Plan, parts: list[Entry]) -> list[str]:
    """Why a program is cut into segments: each extent that only its run tells and a later part needs, with the line
    that tells it."""
    needed = {name for part in parts if part.private for name in part.given}
    labels = {symbol.name: symbol.label or symbol.name for symbol in plan.symbols}
    known = {source.symbol for part in parts if not part.private for source in symbol_sources(part)}
    found: dict[str, str] = {}
    for part in sorted(parts, key=lambda part: not part.private):
        for launch in part.launches:
            extents = [e for r in launch.results if r is not None for e in part.registers[r].spec.shape]
            told = {name for name in launch.defines if name} | {s for e in extents for s in free_symbols(e)}
            for name in sorted((told & needed) - known - {*part.given} - found.keys()):
                place = f" at {plan.locations[launch.location]}" if launch.location >= 0 else ""
                found[name] = f"cut where the run tells the extent {labels[name]}{place}"
    return list(found.values())


def _show_fallbacks(out: Console, fallbacks: list[dict[str, Any]]) -> None:
    out.print()
    if not fallbacks:
        out.print("no fallbacks: every operation has an op or a kernel of its own")
        return
    out.print("fallbacks", style="bold")
    rows = table("count", "operation", "share of FLOPs", "lines of the model", right=("count", "share of FLOPs"))
    for fallback in fallbacks:
        lines = fallback["lines"]
        more = [f"and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []
        rows.add_row(
            str(fallback["count"]),
            escaped(fallback["op"]),
            f"{fallback['share_of_flops']:.1%}",
            escaped("\n".join([*lines[:SHOWN_LINES], *more])),
        )
    out.print(rows)


def escaped(text: str) -> str:
    """Text in which rich sees no markup: ``f32[2, 3]`` is no style."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() or c == "\n" else "?" for c in text))
