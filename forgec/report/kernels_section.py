"""The section of docs/coverage.md on kernels: what has one on the CPU, what has not, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xdsl.ir import Operation

from forgec.ir.forge import FORGE
from forgec.ir.ops.control import AssertOp, ExtentOp, FromIndexOp, ItemOp
from forgec.ir.ops.module import (
    ConstraintOp,
    ParamOp,
    ParamRefOp,
    StateReadOp,
    StateWriteOp,
    SymbolOp,
    YieldOp,
)
from forgec.passes.lower_to_tile import has_rule
from forgec.passes.tiles.rule import OPERATOR_EXPANSIONS, OPERATORS

WITHOUT_KERNEL: dict[type[Operation], str] = {
    AssertOp: "the runtime compares two numbers, without torch",
    ConstraintOp: "it declares something about extents; nothing is computed",
    ExtentOp: "an extent is known from the arguments of the call",
    FromIndexOp: "the runtime writes a number of its own into a tensor, without torch",
    ItemOp: "the runtime reads a number out of a tensor, without torch",
    ParamOp: "it declares a weight; nothing is computed",
    ParamRefOp: "it names a weight; nothing is computed",
    StateReadOp: "it names a state; nothing is computed",
    StateWriteOp: "a copy into the state, where the value was not computed there: machine code of every image",
    SymbolOp: "it declares an extent; nothing is computed",
    YieldOp: "it ends a region; nothing is computed",
}
"""Why an op of the dialect has no rule."""

CONDITIONS = {
    "complex numbers have no tiles": "no vector instructions are for them, and their operators (Fourier transforms) "
    "are libraries of their own; so torch runs what reads or makes them",
    "the target has no tiles of f8…": "processors do not compute with floats of 8 bits",
    "it draws random numbers": "the numbers are those that torch's generator gives, whose state the call moves on",
    "only the data tells the extent of its result": "memory is planned before the call; the runtime takes what the "
    "operator allocates, and what follows is kernels again",
    "it takes a number that the program computes while it runs": "extents of a kernel are known when its row of "
    "launches begins",
    "a result with gaps between its elements is returned": "kernels store densely, and the caller gets the strides "
    "that eager PyTorch gives",
    "rows of more than N elements": "sorting and ranking hold a row in the program's own memory, of which there is so "
    "much",
    "numbers between integers have no rule": "torch interpolates integers in fixed point of its own",
    "booleans do not divide, booleans are not added in memory": "torch refuses these or promotes them first",
    "NAME has no rule": "an operator without an op of the dialect, which is rare in models: torch runs it, and its "
    "neighbours stay kernels",
}
"""What remarks say of an op that stays, although others of its kind have kernels, and what is behind that."""


def kernels_section(architectures: Mapping[str, Mapping[str, Any]]) -> str:
    """What has kernels; ``architectures`` is what ``python -m tools.tiles --record`` found."""
    ops = [cls for cls in FORGE.operations if has_rule(cls)]
    named = sorted(name.removeprefix("aten::") for name in {*OPERATORS, *OPERATOR_EXPANSIONS})
    others = sorted((cls.name, WITHOUT_KERNEL[cls]) for cls in FORGE.operations if not has_rule(cls))
    found = {name: row for name, row in architectures.items() if row["torch"]}
    native = len(architectures) - len(found)
    single = sum(row["calls"] == 1 for row in architectures.values())
    launches = sum(row["kernels"] for row in architectures.values())
    lines = [
        "## Kernels on the CPU",
        "",
        f"{len(ops)} ops of the dialect become kernels of machine code. The others need none:",
        "",
        "| op | why |",
        "|---|---|",
        *(f"| `{name}` | {reason} |" for name, reason in others),
        "",
        f"So do these operators of ATen that have no op of their own: {', '.join(f'`{name}`' for name in named)}.",
        "",
        "An op stays, and torch runs it, where no kernel can hold what it computes. A remark says so with the line of",
        "the model (`--remarks=missed`):",
        "",
        "| remark | why |",
        "|---|---|",
        *(f"| {remark} | {reason} |" for remark, reason in CONDITIONS.items()),
        "",
        f"`python -m tools.tiles --record` found of {len(architectures)} architectures of the tests that {native} run",
        f"without torch, with {launches} launches of kernels, and that {single} are one native call. The others:",
        "",
        "| model | kernels | native calls and others | torch runs | because |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items()):
        called = ", ".join(f"{count} × `{op}`" for op, count in sorted(row["torch"].items()))
        lines.append(f"| {name} | {row['kernels']} | {row['calls']} | {called} | {'; '.join(row['reasons'])} |")
    return "\n".join(lines)


def recorded(path: Path) -> dict[str, Any]:
    """What the tool wrote; nothing where it never ran."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
