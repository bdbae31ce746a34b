"""Gated linear units, as one op each."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.activation import SwishOp
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, MulOp
from forgec.ir.ops.composite import GluOp
from forgec.ir.ops.contraction import ConvolvingOp, GroupedMatmulOp, LinearOp, MatmulOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import ClampOp, GeluOp, ReluOp, SigmoidOp, SiluOp
from forgec.passes.patterns import made_by, missed, only_neighbour, pairs, substitute, through, with_number
from forgec.passes.rewriting import blocks

ACTIVATIONS = (SiluOp, SwishOp, GeluOp, ReluOp, SigmoidOp)
PRODUCTS = ("aten::bmm", "aten::mm", "aten::addmm", "aten::baddbmm")
"""Operators of ATen that, like the dialect's contractions, project their first operand (or that after a bias)."""


@dataclass(frozen=True)
class FuseGlu(ModulePass):
    """Make one op of ``activation(gate) * up`` where gate and up are projections of one value, or slices of one
    projection.

    Before::

        %0 = forge.slice %x dim 1 from 0 step 1 : (tensor<4x16xf32>) -> tensor<4x8xf32, …>
        %1 = forge.slice %x dim 1 from 8 step 1 : (tensor<4x16xf32>) -> tensor<4x8xf32, …>
        %2 = forge.silu %0 : (tensor<4x8xf32, …>) -> tensor<4x8xf32>
        %3 = forge.mul %2, %1 : (tensor<4x8xf32>, tensor<4x8xf32, …>) -> tensor<4x8xf32>

    After::

        %3 = forge.glu %0, %1 activation "silu" : (tensor<4x8xf32, …>, tensor<4x8xf32, …>) -> tensor<4x8xf32>

    The activation is SiLU, ``x * sigmoid(c * x)``, GELU, ReLU or the sigmoid; spelled-out ones are one op after
    ``fuse-activation``. Clamps of gate and up to one limit and a number added to up become properties. Slices may be
    halves or interleaved; they stay, being views.

    Order: after ``fuse-activation``; before ``merge-linears``, after which gate and up are slices as well.
    """

    name = "fuse-glu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, MulOp)]:
                if types.dtype(root.result) in types.FLOATS:
                    _fuse(root)


def _fuse(root: MulOp) -> None:
    near: list[Operation] = []
    for activated, up in pairs(root):
        op = made_by(activated, *ACTIVATIONS)
        if op is None or types.shape(op.input) != types.shape(up) or types.dtype(op.input) != types.dtype(up):
            continue
        if not _are_parallel(op.input, up):
            near += [op] if isinstance(op, (SiluOp, GeluOp)) else []
        elif only_neighbour(activated) is not root:
            missed(op, "no gated unit was made: the activated gate has other uses")
            return
        else:
            _rewrite(root, _Unit(op, op.input, up))
            return
    for op in near:
        missed(op, "no gated unit was made: gate and up are not projections of one value")


@dataclass
class _Unit:
    """What ``forge.glu`` is made of."""

    activation: Operation
    gate: SSAValue
    up: SSAValue
    properties: dict[str, Attribute] = field(default_factory=dict)
    matched: list[Operation] = field(default_factory=list)

    def take_offset(self) -> None:
        """A number added to up."""
        op = made_by(self.up, AddOp)
        found = None if op is None else with_number(op)
        if op is None or found is None or types.shape(found[0]) != types.shape(self.up):
            return
        if types.dtype(found[0]) == types.dtype(self.up):
            self.up = found[0]
            self.properties["up_offset"] = ScalarAttr.of(found[1])
            self.matched.append(op)

    def take_limit(self) -> None:
        """Clamps of the gate from above, and of up from both sides, to one limit."""
        gate, up = made_by(self.gate, ClampOp), made_by(self.up, ClampOp)
        if gate is None or up is None or gate.upper is None or gate.lower is not None:
            return
        if up.lower is None or up.upper is None or not up.upper.value == gate.upper.value == -up.lower.value:
            return
        kept = all(types.dtype(op.input) == types.dtype(op.result) for op in (gate, up))
        if kept:
            self.properties["limit"] = gate.upper
            self.gate, self.up = gate.input, up.input
            self.matched += [gate, up]


def _rewrite(root: MulOp, unit: _Unit) -> None:
    op = unit.activation
    if isinstance(op, GeluOp):
        name = "gelu" if op.approximate.data == "none" else "gelu_tanh"
    else:
        name = {SiluOp: "silu", SwishOp: "silu", ReluOp: "relu", SigmoidOp: "sigmoid"}[type(op)]
    unit.properties["activation"] = StringAttr(name)
    if isinstance(op, SwishOp):
        unit.properties["alpha"] = op.beta
    unit.take_offset()
    unit.take_limit()
    new = GluOp.make([unit.gate, unit.up], unit.properties, [root.result.type])
    substitute(root, [new], [*unit.matched, op], f"made one forge.glu of a gated unit with {name}")


def _are_parallel(gate: SSAValue, up: SSAValue) -> bool:
    """True if two values are slices of one value, or projections of one value."""
    first, second = _origin(gate), _origin(up)
    return first is not None and first == second


def _origin(value: SSAValue) -> tuple[str, SSAValue] | None:
    """What a value is a slice or a projection of, seen through what changes each number alone."""
    value = through(value, ClampOp, ReshapeOp, TransposeOp, CopyOp)
    op = producer(value)
    if isinstance(op, AddOp):  # a number, or a bias
        for operand in op.operands:
            inner = through(operand, ClampOp, ReshapeOp, TransposeOp, CopyOp)
            found = _projected(inner)
            if found is not None:
                return found
        return None
    return _projected(value)


def _projected(value: SSAValue) -> tuple[str, SSAValue] | None:
    op = producer(value)
    if isinstance(op, SliceOp):
        return "slice", through(op.input, ReshapeOp)
    if isinstance(op, (LinearOp, MatmulOp, GroupedMatmulOp, ConvolvingOp)):
        return "projection", through(op.operands[0], ReshapeOp, CopyOp)
    if isinstance(op, AtenOp) and op.callee.data in PRODUCTS:
        place = 1 if op.callee.data in PRODUCTS[-2:] else 0
        return "projection", through(op.operands[place], ReshapeOp, CopyOp)
    return None
