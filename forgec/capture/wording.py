"""What the user wrote at a line, for texts in which torch has names of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from forgec.diagnostics import Location
from forgec.diagnostics.render import source_line

LONGEST = 60
"""Characters of what is quoted, at most."""
_SYMBOL = re.compile(r"\bz?u(?:f)?\d+\b")
_RELATIONS = {"Eq": "==", "Ne": "!=", "Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


def decided(expression: str, place: Location | None) -> str:
    """The condition that the user's line decides by; where there is none or there are several, torch's expression of
    it, in which ``n`` (``m``, …) stands for what depends on the data.
    """
    written = {ast.unparse(t) for tree in _trees(place) for t in _tests(tree) if _numbers(expression) <= _constants(t)}
    if len(written) == 1 and len(text := written.pop()) <= LONGEST:
        return text
    names = dict.fromkeys(_SYMBOL.findall(expression))
    letters = dict(zip(names, "nmkji", strict=False))
    text = re.sub(
        r"\b(Eq|Ne|Gt|Ge|Lt|Le)\(([^(),]+), ([^(),]+)\)", lambda m: f"{m[2]} {_RELATIONS[m[1]]} {m[3]}", expression
    )
    text = _SYMBOL.sub(lambda name: letters.get(name[0], name[0]), text)
    who = " and ".join(letters.values())
    return f"{text}, where {who} depend{'s' if len(letters) == 1 else ''} on the data" if letters else text


def _numbers(expression: str) -> set[float]:
    """The numbers of an expression of torch's, but for those that it compares truths with."""
    return {float(number) for number in re.findall(r"(?<![\w.])\d+\.?\d*", expression)} - {0.0, 1.0}


def _constants(test: ast.expr) -> set[float]:
    values = (node.value for node in ast.walk(test) if isinstance(node, ast.Constant))
    return {float(value) for value in values if isinstance(value, (int, float))}


def call_at(place: Location | None, function: str) -> str | None:
    """The one call of a function or method at a line, as it is written there."""
    found = {
        ast.unparse(node)
        for tree in _trees(place)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _called(node) == function
    }
    return found.pop() if len(found) == 1 and all(len(text) <= LONGEST for text in found) else None


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _trees(place: Location | None) -> Iterator[ast.AST]:
    """The statement at a line, if it is one or begins one."""
    line = None if place is None else source_line(place)
    text = (line or "").strip()
    for before, after in (("", ""), ("", " pass"), ("if 0: pass\n", " pass")):
        try:
            yield from ast.parse(before + text + after).body[-1:]
            return
        except (SyntaxError, ValueError):
            continue


def _tests(tree: ast.AST) -> Iterator[ast.expr]:
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Constant):  # stands in for the one before elif
        tree = ast.Module(body=tree.orelse, type_ignores=[])
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
