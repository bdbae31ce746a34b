"""An example of every op of the forge dialect: the IR reference prints them, and the tests parse, verify and run them.

An example is the text of one op, whose operands become the arguments of a function, or, where one op cannot stand
alone, of a whole module. Blank lines separate examples.
"""

from __future__ import annotations

import re
from pathlib import Path

FORGE_EXAMPLES: tuple[str, ...] = tuple(Path(__file__).with_suffix(".mlir").read_text().strip().split("\n\n"))

_WHOLE = ("func.func", "forge.symbol", "forge.param ", "plan.")


def module_of(example: str) -> str:
    """The example as the text of a module: where it is one op, in a function whose arguments are the operands."""
    if example.startswith(_WHOLE):
        return example
    example = " ".join(example.split())
    results, equals, _ = example.partition(" = ")
    names = re.findall(r"%[\w.]+", example.removeprefix(results + equals if equals else ""))
    operand_types, result_types = _signature(example, len(names))
    if not equals:
        results, example = "%r", f"%r = {example}"
    arguments = ", ".join(f"{name}: {kind}" for name, kind in zip(names, operand_types, strict=True))
    returned = ", ".join(result_types)
    return f"func.func @forward({arguments}) -> ({returned}) {{\n  {example}\n  func.return {results} : {returned}\n}}"


def op_name(example: str) -> str:
    """The name of the op that the example is about: the last of its own dialect's that is no companion."""
    if example.startswith("func.func"):
        shown = ("scan", "fused", "state_write", "assert", "item", "from_index", "extent")
        return next(f"forge.{name}" for name in shown if f"forge.{name} " in example)
    names = re.findall(r"\b(forge\.[a-z_0-9]+)(?=\s)", example)
    return names[-1] if "param_ref" in example else names[0]


def _signature(example: str, operands: int) -> tuple[list[str], list[str]]:
    """Operand and result types, from ``… : (a, b) -> c`` or, without operands, from ``… : c``."""
    if operands == 0:
        return [], [_split(example, " : ")[-1]]
    before, _, after = example.rpartition(") -> ")
    signature = before[before.rindex(" : (") + 4 :]
    return _split(signature, ", "), _split(
        after.removeprefix("(").removesuffix(")") if after.startswith("(") else after, ", "
    )


def _split(text: str, separator: str) -> list[str]:
    """Cut at separators outside brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "<[(":
            depth += 1
        elif character in ">])" and not text.startswith("->", index - 1):
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            parts.append(text[start:index])
            start = index + len(separator)
    return [*parts, text[start:]]
