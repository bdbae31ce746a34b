"""Seeded miscompiles: passes that are wrong on purpose, for tests only.

A *mutation* looks at one op and changes it. It is applied by a pass of its own (``seeded-KIND``), or to the ops that a
pass of forgec has made, in that pass's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntAttr, ModuleOp, StringAttr
from xdsl.dialects.func import CallOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.binary import AddOp, LeOp, LtOp, MulOp, SubOp
from forgec.ir.ops.composite import GluOp, RopeOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import GatherOp
from forgec.ir.ops.module import ConstantOp, StateWriteOp
from forgec.ir.ops.norm import RmsNormOp
from forgec.ir.ops.reduction import SoftmaxOp, SumOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import ConcatOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp, GeluOp, NegOp
from forgec.passes.registry import all_passes
from forgec.passes.rewriting import replace

Mutation = Callable[[Operation], None]


def seeded(kind: str, mutate: Mutation) -> type[ModulePass]:
    """A pass of its own that mutates every op."""

    @dataclass(frozen=True)
    class Seeded(ModulePass):
        name: ClassVar[str] = f"seeded-{kind}"

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            for inner in list(op.walk()):
                mutate(inner)

    return Seeded


def wrapped(pass_name: str, mutate: Mutation) -> type[ModulePass]:
    """A pass of forgec, wrong: what it makes is mutated."""
    real: Any = all_passes()[pass_name]()

    class Wrapped(real):
        def apply(self, ctx: Context, op: ModuleOp) -> None:
            before = set(op.walk())
            super().apply(ctx, op)
            for inner in [inner for inner in op.walk() if inner not in before]:
                mutate(inner)

    return Wrapped


def attention_scale(op: Operation) -> None:
    if isinstance(op, AttentionOp):
        scale = op.scale.value if op.scale is not None else types.shape(op.query)[-1] ** -0.5  # type: ignore[operator]
        op.scale = ScalarAttr.of(float(scale) * 1.5)  # type: ignore[arg-type]


def causal(op: Operation) -> None:
    if isinstance(op, AttentionOp) and op.causal is not None:
        op.offset = ExtentAttr(1)


def window(op: Operation) -> None:
    if isinstance(op, AttentionOp) and op.window is not None:
        op.window = IntAttr(op.window.data - 1)


def head_groups(op: Operation) -> None:
    """Head h attends with key head ``h % Hk``, as if keys had been tiled."""
    if isinstance(op, AttentionOp) and types.shape(op.key)[-3] != types.shape(op.query)[-3]:
        count = types.shape(op.query)[-3] // types.shape(op.key)[-3]  # type: ignore[operator]
        for position in (1, 2):
            tiled = ConcatOp.make([op.operands[position]] * count, {"dim": IntAttr(types.rank(op.key) - 3)})
            insert_before(op, tiled)
            op.operands[position] = tiled.results[0]


def rope_sign(op: Operation) -> None:
    if isinstance(op, RopeOp):
        turned = NegOp.make([op.sin])
        insert_before(op, turned)
        op.operands[2] = turned.results[0]


def norm_eps(op: Operation) -> None:
    if isinstance(op, RmsNormOp):
        op.eps = ScalarAttr.of(0.0)


def norm_offset(op: Operation) -> None:
    if isinstance(op, RmsNormOp):
        op.weight_offset = None


def glu_operands(op: Operation) -> None:
    if isinstance(op, GluOp):
        op.operands = [op.up, op.gate]


def merge_offset(op: Operation) -> None:
    if isinstance(op, SliceOp) and isinstance(op.start.data, int) and op.start.data > 0:
        op.start = ExtentAttr(op.start.data - 1)


def residual(op: Operation) -> None:
    if isinstance(op, FusedOp):
        for inner in list(op.body.block.ops):
            if isinstance(inner, AddOp) and inner.rhs is not None and inner.rhs.type == inner.results[0].type:
                replace(inner, [inner.operands[1] if inner.lhs.owner is op.body.block else inner.lhs])


def stale_operand(op: Operation) -> None:
    if isinstance(op, FusedOp) and len(set(op.operand_types)) < len(op.operands):
        first, *others = op.body.block.args
        for other in others:
            if other.type == first.type:
                other.replace_all_uses_with(first)


def sub_operands(op: Operation) -> None:
    if isinstance(op, SubOp) and op.rhs is not None and op.lhs.type == op.rhs.type:
        op.operands = [op.rhs, op.lhs]


def softmax_dim(op: Operation) -> None:
    if isinstance(op, SoftmaxOp):
        op.dim = IntAttr(op.dim.data - 1)


def permutations(op: Operation) -> None:
    """Two transposes become one, composed the wrong way round."""
    inner = op.operands[0].owner if isinstance(op, TransposeOp) else None
    if isinstance(op, TransposeOp) and isinstance(inner, TransposeOp):
        composed = [op.permutation.data[i] for i in inner.permutation.data]
        new = TransposeOp.make([inner.input], {"permutation": IntsAttr(composed)}, [op.results[0].type])
        replace(op, new.results, [new])


def times_one(op: Operation) -> None:
    if isinstance(op, MulOp) and op.scalar is not None and op.scalar.value == 1:
        kind = op.results[0].type
        new = FullOp.make([], {"value": ScalarAttr.of(1.0)}, [types.tensor(types.dtype(kind), types.shape(kind))])
        replace(op, new.results, [new])


def broadcast_dim(op: Operation) -> None:
    """A column of a square is added as if it were a row."""
    if isinstance(op, AddOp) and op.rhs is not None and types.shape(op.rhs) == (4, 1):
        row = ReshapeOp.make([op.rhs], {}, [types.tensor("f32", (1, 4))])
        insert_before(op, row)
        op.operands[1] = row.results[0]


def cse_attribute(op: Operation) -> None:
    """Ops of one kind on one operand are taken for equal, whatever dimension they are about."""
    if isinstance(op, SoftmaxOp):
        alike = [use.operation for use in op.input.uses if isinstance(use.operation, SoftmaxOp)]
        earlier = min(alike, key=list(op.parent.ops).index)  # type: ignore[union-attr]
        if earlier is not op:
            replace(op, earlier.results)


def gelu(op: Operation) -> None:
    if isinstance(op, GeluOp):
        op.approximate = StringAttr("tanh")


def constant(op: Operation) -> None:
    """A literal is kept in bfloat16 on the way."""
    if isinstance(op, ConstantOp) and types.dtype(op.result) == "f32":
        import torch

        values = torch.tensor(op.value.get_values()).bfloat16().float().tolist()  # type: ignore[arg-type]
        op.value = DenseIntOrFPElementsAttr.from_list(op.value.type, values)  # type: ignore[arg-type]


def cast_order(op: Operation) -> None:
    """``int(x) * c`` becomes ``int(x * c)``."""
    cast = op.operands[0].owner if isinstance(op, MulOp) else None
    if isinstance(op, MulOp) and op.scalar is not None and isinstance(cast, CastOp) and types.dtype(op.lhs) == "i64":
        product = MulOp.of(cast.input, op.scalar.value)  # type: ignore[arg-type]
        new = CastOp.make([product.results[0]], {}, [op.results[0].type])
        replace(op, new.results, [product, new])


def sum_dim(op: Operation) -> None:
    if isinstance(op, SumOp):
        op.dims = IntsAttr([0])


def concat_order(op: Operation) -> None:
    if isinstance(op, ConcatOp):
        op.operands = list(reversed(op.operands))


def slice_start(op: Operation) -> None:
    if isinstance(op, SliceOp) and op.start.data == 1:
        op.start = ExtentAttr(2)


def gather_dim(op: Operation) -> None:
    if isinstance(op, GatherOp):
        op.dim = IntAttr(1 - op.dim.data)


def where_branches(op: Operation) -> None:
    if isinstance(op, WhereOp) and op.operands[1].type == op.operands[2].type:
        condition, first, second = op.operands
        op.operands = [condition, second, first]


def comparison(op: Operation) -> None:
    if isinstance(op, LtOp):
        properties = {name: value for name, value in op.properties.items() if name == "scalar"}
        new = LeOp.make(list(op.operands), properties)
        replace(op, new.results, [new])


def state_write(op: Operation) -> None:
    """A write whose value nobody seems to read is removed."""
    if isinstance(op, StateWriteOp):
        replace(op, [op.state])


def call_operands(op: Operation) -> None:
    """A layer gets two of its weights in the wrong order."""
    if isinstance(op, CallOp):
        same = [i for i, v in enumerate(op.operands) if v.type == op.operands[-1].type]
        if len(same) > 1:
            first, last = same[0], same[-1]
            op.operands[first], op.operands[last] = op.operands[last], op.operands[first]


def insert_before(op: Operation, new: Operation) -> None:
    """Insert an op, at the line of the one that it stands before."""
    assert op.parent is not None
    new.location = op.location
    op.parent.insert_op_before(new, op)
