"""What an op does, as a text in which locations and names of values are no part: equal texts, equal computations."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Attribute, Block, Operation, SSAValue

ATTRIBUTES_LIMIT = 1 << 14
"""Texts of attributes that are kept; types and lists of extents recur all over a module."""

_TEXTS: dict[Attribute, str] = {}


def structure_text(op: Operation, inputs: Sequence[SSAValue] = (), without: Sequence[str] = ()) -> str:
    """The op with all that it holds, one op a line: name, operands by number, properties, types.

    Values that it does not define are numbered as they come, beginning with ``inputs``, and named with their types.
    ``without`` are properties of the op itself that shall not count. The text is for comparison and for digests: it is
    the same in every process, and much faster to make than the printed form.
    """
    numbers: dict[SSAValue, int] = {}
    lines: list[str] = []
    for value in inputs:
        _number(value, numbers)
    lines.append(",".join(f"%{numbers[value]}:{_text(value.type)}" for value in inputs))
    _op(op, numbers, lines, without)
    return "\n".join(lines)


def _number(value: SSAValue, numbers: dict[SSAValue, int]) -> int:
    return numbers.setdefault(value, len(numbers))


def _op(
    op: Operation,
    numbers: dict[SSAValue, int],
    lines: list[str],
    without: Sequence[str] = (),
) -> None:
    parts = [op.name]
    for operand in op.operands:
        if operand in numbers:
            parts.append(f"%{numbers[operand]}")
        else:
            parts.append(f"%{_number(operand, numbers)}:{_text(operand.type)}")
    for name in sorted(op.properties):
        if name not in without:
            parts.append(f"{name}={_text(op.properties[name])}")
    for name in sorted(op.attributes):
        parts.append(f"[{name}]={_text(op.attributes[name])}")
    for result in op.results:
        parts.append(f">%{_number(result, numbers)}:{_text(result.type)}")
    lines.append(" ".join(parts))
    for region in op.regions:
        lines.append("{")
        for block in region.blocks:
            _block(block, numbers, lines)
        lines.append("}")


def _block(block: Block, numbers: dict[SSAValue, int], lines: list[str]) -> None:
    lines.append("^" + " ".join(f"%{_number(argument, numbers)}:{_text(argument.type)}" for argument in block.args))
    for op in block.ops:
        _op(op, numbers, lines)


def _text(attribute: Attribute) -> str:
    found = _TEXTS.get(attribute)
    if found is None:
        if len(_TEXTS) >= ATTRIBUTES_LIMIT:
            _TEXTS.clear()
        found = _TEXTS[attribute] = str(attribute)
    return found
