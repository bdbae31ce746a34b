"""Finding loops that were written out: the same ops again and again, each time on the next slice of the same tensors
and on what the time before has computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.traits import is_side_effect_free

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.shape import InsertSliceOp, SliceOp

LEAST_STEPS = 4
"""Steps from which on they are written as a loop."""

Made: TypeAlias = tuple[int, int]
"""A value of a step: the number of its op in the step, and which of the op's results it is."""


@dataclass
class Family:
    """Slices of one place each of a tensor along a dimension, by place, without a gap from ``first`` on."""

    source: SSAValue
    dim: int
    slices: dict[int, list[SliceOp]] = field(default_factory=dict)
    first: int = 0


@dataclass
class UnrolledLoop:
    """``steps[i]`` are the ops of step i, the same in each but for those that nothing needed (None). ``initial`` are
    the values that the first step takes where each later one takes what the one before has made.
    """

    steps: list[list[Operation | None]]
    first: int
    """How many slices of each family come before that of the first step."""
    initial: dict[Made, SSAValue]
    families: dict[SliceOp, Family]

    def value(self, step: int, made: Made) -> SSAValue | None:
        """What a step makes; None where nothing needed it."""
        op = self.steps[step][made[0]]
        return None if op is None else op.results[made[1]]


def find_loop(block: Block, tried: set[SSAValue]) -> UnrolledLoop | None:
    """The first loop of a block whose slices are of tensors that are not among ``tried``, where those that turn out to
    be none of a loop are put.
    """
    ops = list(block.ops)
    place = {op: number for number, op in enumerate(ops)}
    families = _families(ops)
    for op in ops:
        family = families.get(op) if isinstance(op, SliceOp) else None
        if family is None or family.source in tried:
            continue
        tried.add(family.source)
        second = min(place[each] for each in family.slices[family.first + 1])
        fitting: dict[SliceOp, Family] = {}
        for each, found in families.items():
            first = _first(found, family)
            if first is None or _place_of(found.source, place) >= second:
                continue
            if each.start.data in range(first, first + len(family.slices)):
                fitting[each] = replace(found, first=first)
        loop = _loop(ops[place[op] :], fitting, len(family.slices))
        if loop is not None:
            return loop
    return None


def _first(family: Family, anchor: Family) -> int | None:
    """Which slice of a family is that of the first step; None if it has not as many as the steps."""
    count = len(anchor.slices)
    if all(start in family.slices for start in anchor.slices):
        return anchor.first
    return family.first if len(family.slices) == count else None


def _place_of(value: SSAValue, place: dict[Operation, int]) -> int:
    return place.get(value.owner, -1) if isinstance(value.owner, Operation) else -1


def _families(ops: Sequence[Operation]) -> dict[SliceOp, Family]:
    found: dict[tuple[SSAValue, int], Family] = {}
    for op in ops:
        if isinstance(op, SliceOp) and isinstance(op.start.data, int) and types.shape(op.result)[op.dim.data] == 1:
            family = found.setdefault((op.input, op.dim.data), Family(op.input, op.dim.data))
            family.slices.setdefault(op.start.data, []).append(op)
    families: dict[SliceOp, Family] = {}
    for family in found.values():
        starts = sorted(family.slices)
        if len(starts) >= LEAST_STEPS and all(after == before + 1 for before, after in pairwise(starts)):
            family.first = starts[0]
            families.update({op: family for ops in family.slices.values() for op in ops})
    return families


def _loop(ops: Sequence[Operation], families: dict[SliceOp, Family], count: int) -> UnrolledLoop | None:
    """The loop that the steps over some families of ``count`` slices are; ``ops`` are those from the first on."""
    families = dict(families)
    step_of: dict[Operation, int] = {}
    steps: list[list[Operation]] = [[] for _ in range(count)]
    for op in ops:
        if isinstance(op, SliceOp) and op in families and op.input.owner in step_of:
            del families[op]  # it is a slice of what a step makes
        if isinstance(op, SliceOp) and op in families:
            assert isinstance(op.start.data, int), "as all of a family"
            step = op.start.data - families[op].first
        else:
            inner = (value for nested in op.walk() for value in nested.operands) if op.regions else op.operands
            step = max((step_of.get(v.owner, -1) for v in inner if isinstance(v, OpResult)), default=-1)
        if step >= 0:
            step_of[op] = step
            steps[step].append(op)
    position = {op: number for each in steps[:3] for number, op in enumerate(each)}
    model = _Signatures(step_of, position, families)
    template = [model.of(op, 2) for op in steps[2]]
    size = len(template)
    if not size or any(not _is_plain(op) for op in steps[2]):
        return None
    matched: list[list[Operation | None]] = [list(each) for each in steps[:3]]
    for step in range(3, count):
        found = _aligned(model, steps[step], step, template)
        if sum(op is not None for op in found) < len(steps[step]) and step < count - 1:
            return None
        matched.append(found)
    for first in (0, 1):
        initial = model.initial(steps[first], first, template) if len(steps[first]) == size else None
        if initial is not None and (first == 1 or _continues(model, steps[1], template)):
            return UnrolledLoop(matched[first:], first, initial, families)
    return None


def _aligned(
    model: _Signatures, ops: Sequence[Operation], step: int, template: Sequence[Any]
) -> list[Operation | None]:
    """For each op of the template the step's, if it has one. What comes after the loop is no part of its last step."""
    found: list[Operation | None] = []
    rest = iter(ops)
    op = next(rest, None)
    for number, known in enumerate(template):
        if op is not None and model.of(op, step) == known:
            model.position[op] = number
            found.append(op)
            op = next(rest, None)
        else:
            found.append(None)
    return found


def _continues(model: _Signatures, step: Sequence[Operation], template: Sequence[Any]) -> bool:
    return [model.of(op, 1) for op in step] == template


def _is_plain(op: Operation) -> bool:
    return isinstance(op, ForgeOp) and is_side_effect_free(op) and not op.regions


@dataclass
class _Signatures:
    """What an op of a step does, in terms that are the same in each step."""

    step_of: dict[Operation, int]
    position: dict[Operation, int]
    families: dict[SliceOp, Family]

    def of(self, op: Operation, step: int) -> Any:
        """Kind, attributes, types and operands of an op."""
        return self._kind(op, step), tuple(self._operand(value, step) for value in op.operands)

    def _kind(self, op: Operation, step: int) -> Any:
        properties = dict(op.properties)
        if isinstance(op, SliceOp) and op in self.families:
            properties.pop("start")
        elif isinstance(op, InsertSliceOp) and isinstance(op.start.data, int):
            properties["start"] = ExtentAttr(op.start.data - step + (1 << 40))
        kinds = tuple((types.dtype(v), types.shape(v)) for v in (*op.operands, *op.results))
        return type(op), tuple(sorted(properties.items())), tuple(sorted(op.attributes.items(), key=str)), kinds

    def _operand(self, value: SSAValue, step: int) -> Any:
        owner = value.owner
        at = self.step_of.get(owner) if isinstance(value, OpResult) else None  # type: ignore[arg-type] - an op
        if at is None:
            return "same", value
        made = (self.position.get(owner, -1), value.index)  # type: ignore[arg-type, union-attr] - the result of an op
        if at == step:
            return "own", made
        return ("before", made) if at == step - 1 else ("other", value)

    def initial(self, ops: Sequence[Operation], step: int, template: Sequence[Any]) -> dict[Made, SSAValue] | None:
        """What a step takes where the template takes what the step before has made; None if it is no such step."""
        found: dict[Made, SSAValue] = {}
        for op, (kind, operands) in zip(ops, template, strict=True):
            if self._kind(op, step) != kind or len(op.operands) != len(operands):
                return None
            for value, (origin, wanted) in zip(op.operands, operands, strict=True):
                own = self._operand(value, step)
                if origin == "before" and own[0] != "own":
                    if found.setdefault(wanted, value) is not value:
                        return None
                elif own != (origin, wanted):
                    return None
        return found
