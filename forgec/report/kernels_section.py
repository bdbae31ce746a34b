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
        "An op stays, and torch runs it, where no kernel can hold what it computes: for its dtype, its extents, or",
        "because nobody wrote a rule. A remark says so with the line of the model (`--remarks=missed`), and",
        "[What runs as ATen](tile.md#what-runs-as-aten) says what is behind it.",
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
