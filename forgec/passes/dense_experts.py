"""Reading mixtures of experts that evaluate every expert on every row, with weights that are zero but for a few."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.composite import GluOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.index import ScatterOp
from forgec.ir.ops.order import TopkOp
from forgec.ir.ops.reduction import SoftmaxOp, SumOp
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp, SigmoidOp
from forgec.passes.expert_rows import NotFused, lean, plain
from forgec.passes.patterns import made_by, number, pairs


@dataclass
class Scores:
    """Weights [N, E] of all experts: ``steps`` applied to ``values`` [N, k], put where ``indices`` [N, k] say; 0
    elsewhere."""

    indices: SSAValue
    values: SSAValue
    steps: list[Operation] = field(default_factory=list)

    def replayed(self) -> tuple[SSAValue, list[Operation]]:
        """The weights [N, k] of the chosen experts."""
        value, made = self.values, []
        for step in self.steps:
            kind = types.tensor(types.dtype(step.results[0]), types.shape(value))
            properties: dict[str, Attribute] = {"dim": IntAttr(1)} if isinstance(step, SoftmaxOp) else {}
            made.append(type(step).make([value], properties, [kind]))  # type: ignore[attr-defined]
            value = made[-1].results[0]
        return value, made


@dataclass
class Dense:
    """What ``forge.moe`` is made of."""

    operands: list[SSAValue]
    properties: dict[str, Attribute]
    made: list[Operation]
    """Ops that compute operands."""
    ops: list[Operation]
    """Ops that it covers."""


def read_dense(root: SumOp) -> Dense | None:
    """Read a sum over all experts, of which only those that a top-k chose have a weight. None if ``root`` is no such
    sum; raises NotFused if it is one that the op does not cover.
    """
    down = made_by(plain(root.input), MatmulOp)
    if root.dims.data != (0,) or types.rank(root.input) != 3 or down is None or types.rank(down.rhs) != 3:
        return None
    unit = made_by(plain(down.lhs), GluOp)
    if unit is None:
        return None
    first, second = made_by(unit.gate, SliceOp), made_by(unit.up, SliceOp)
    up = None if first is None else made_by(first.input, MatmulOp)
    if first is None or second is None or up is None or second.input is not first.input or types.rank(up.rhs) != 3:
        return None
    scaled = made_by(plain(up.lhs), MulOp)
    found = None if scaled is None else _scaled(scaled, types.shape(up.rhs)[0])
    if scaled is None or found is None or types.shape(root.input)[0] != types.shape(up.rhs)[0]:
        return None
    source, scores = found
    if unit.activation.data == "sigmoid" and unit.up_offset is not None:
        raise NotFused("an expert makes more than zero of rows that are zero")
    names = ("activation", "alpha", "limit", "up_offset")
    properties = {name: unit.properties[name] for name in names if name in unit.properties}
    properties |= {"packed": _packing(first, second), "transposed": UnitAttr(), "scale_input": UnitAttr()}
    ops: list[Operation] = [scaled, up, first, second, unit, down]
    if any(len(list(op.results[0].uses)) != 1 for op in ops if op is not up):
        raise NotFused("what stands between the products has other uses")
    weights, made = scores.replayed()
    rows = (types.shape(scores.indices)[0], types.shape(up.lhs)[-1])
    if types.shape(source) != rows:
        made.append(ReshapeOp.make([source], {}, [types.tensor(types.dtype(source), rows)]))
        source = made[-1].results[0]
    return Dense([source, scores.indices, weights, up.rhs, down.rhs], properties, made, ops)


def _packing(gate: SliceOp, up: SliceOp) -> Attribute:
    shape, width = types.shape(gate.input), types.shape(gate.result)[-1]
    places = [(s.dim.data, s.start.data, s.step.data, types.shape(s.result)[-1]) for s in (gate, up)]
    if not isinstance(width, int) or shape[-1] != 2 * width:
        raise NotFused("gate and up are not all of a product")
    if places == [(2, 0, 1, width), (2, width, 1, width)]:
        return StringAttr("halves")
    if places == [(2, 0, 2, width), (2, 1, 2, width)]:
        return StringAttr("interleaved")
    raise NotFused("gate and up are neither the halves of a product nor its columns by turns")


def _scaled(op: MulOp, experts: object) -> tuple[SSAValue, Scores] | None:
    """``x`` [N, D] (in any shape) and the scores, of ``x`` for each of the experts times its score for each row."""
    for rows, weights in pairs(op):
        spread, turned = made_by(plain(rows), BroadcastOp), made_by(plain(weights), TransposeOp)
        if spread is None or turned is None or tuple(turned.permutation.data) != (1, 0):
            continue
        scores = scores_of(turned.input)
        if scores is None or types.dtype(op.result) != types.dtype(rows):
            continue
        count, width = types.shape(scores.indices)[0], types.shape(rows)[-1]
        whole, part = types.shape(spread.result), types.shape(spread.input)
        leading = whole[:1] == (experts,) and (len(part) < len(whole) or part[0] == 1)
        if leading and lean(whole[1:]) == lean(part) == lean((count, width)) and part[-1] == width:
            return plain(spread.input), scores
    return None


def scores_of(value: SSAValue) -> Scores | None:
    """Read weights [N, E] that are zero but for the choices of a top-k: what was scattered there, or minus infinity
    elsewhere before a sigmoid or softmax.
    """
    steps: list[Operation] = []
    while isinstance(op := producer(value), (CastOp, SigmoidOp, SoftmaxOp)):
        if types.dtype(op.input) not in types.FLOATS or (isinstance(op, SoftmaxOp) and op.dim.data != 1):
            return None
        steps.insert(0, op)
        value = op.input
    op = made_by(value, ScatterOp)
    if op is None or op.dim.data != 1 or types.rank(value) != 2:
        return None
    chosen = made_by(op.index, TopkOp)
    whole = types.shape(op.source) == types.shape(op.index) and types.shape(op.index)[0] == types.shape(value)[0]
    if chosen is None or op.index is not chosen.indices or chosen.dim.data != 1 or not whole:
        return None
    squashed = [step for step in steps if not isinstance(step, CastOp)]
    filled = number(op.destination)
    zero = filled == 0 and not squashed
    if not zero and not (filled == -math.inf and len(squashed) == 1):
        return None
    return Scores(op.index, op.source, steps)
