"""Whatever a mask is computed from, attention keeps its value when the mask becomes words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue

from forgec.ir import context, types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.interpreter import interpret
from forgec.ir.ops.attention import LEAST, AttentionOp
from forgec.ir.ops.binary import (
    AddOp,
    BinaryOp,
    BitwiseAndOp,
    BitwiseOrOp,
    EqOp,
    FloorDivOp,
    GeOp,
    GtOp,
    LeOp,
    LogicalAndOp,
    LtOp,
    MulOp,
    NeOp,
    RsubOp,
    SubOp,
)
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.unary import AbsOp, BitwiseNotOp, LogicalNotOp
from forgec.passes import pipelines
from forgec.passes.manager import run_pipeline
from tests.ir.build import function

BATCH, HEADS, FEATURES = 2, 2, 4
COMPARISONS: tuple[type[BinaryOp], ...] = (LeOp, LtOp, GeOp, GtOp, EqOp, NeOp)

small = st.integers(-3, 4)
position = st.one_of(
    st.tuples(st.just("compare"), st.sampled_from(COMPARISONS), small),
    st.tuples(st.just("reversed"), st.sampled_from(COMPARISONS), small),
    st.tuples(st.just("abs"), st.sampled_from((LeOp, LtOp, GeOp)), st.integers(0, 4)),
    st.tuples(st.just("chunk"), st.sampled_from((EqOp, NeOp)), st.integers(1, 4)),
    st.tuples(st.just("row"), st.sampled_from(COMPARISONS), small),
    st.tuples(st.just("column"), st.sampled_from(COMPARISONS), small),
    st.tuples(st.just("keys")),
    st.tuples(st.just("free")),
)
condition = st.recursive(
    position,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), st.sampled_from((LogicalNotOp, BitwiseNotOp)), inner),
        st.tuples(st.just("and"), st.sampled_from((BitwiseAndOp, LogicalAndOp)), inner, inner),
        st.tuples(st.just("and"), st.just(BitwiseOrOp), inner, inner),
    ),
    max_leaves=5,
)


class Masks:
    """Builds conditions over rows that start at ``start``."""

    def __init__(self, emit: Emitter, rows: int, columns: int, start: int, keys: SSAValue, free: SSAValue) -> None:
        self.emit = emit
        row = emit.typed(IotaOp, dtype="i64", shape=[rows], start=ExtentAttr(start), step=ExtentAttr(1))
        self.row = emit.reshape(row, (1, 1, rows, 1))
        self.column = emit.iota(columns)
        self.keys = emit.reshape(keys, (BATCH, 1, 1, columns))
        self.free = free

    def build(self, what: tuple) -> SSAValue:
        emit = self.emit
        match what:
            case ("compare", cls, number):
                return emit.binary(cls, self.column, emit.binary(AddOp, self.row, number))
            case ("reversed", cls, number):
                return emit.binary(cls, emit.binary(SubOp, self.row, self.column), number)
            case ("abs", cls, number):
                return emit.binary(cls, emit(AbsOp, emit(SubOp, self.column, self.row)), number)
            case ("chunk", cls, number):
                return emit(cls, *(emit.binary(FloorDivOp, place, number) for place in (self.row, self.column)))
            case ("row", cls, number):
                return emit.binary(cls, self.row, number)
            case ("column", cls, number):
                return emit.binary(cls, self.column, number)
            case ("keys",):
                return self.keys
            case ("free",):
                return self.free
            case ("not", cls, inner):
                return emit(cls, self.build(inner))
            case ("and", cls, left, right):
                return emit(cls, self.build(left), self.build(right))
        raise AssertionError(what)


def as_mask(emit: Emitter, kept: SSAValue, form: str, bias: SSAValue) -> SSAValue:
    """A condition as what models make of it."""
    zero, least = (emit.full(number, "f32", ()) for number in (0.0, LEAST["f32"]))
    match form:
        case "boolean":
            return kept
        case "where":
            return emit(WhereOp, kept, zero, least)
        case "infinite":
            return emit(WhereOp, kept, zero, emit.full(-float("inf"), "f32", ()))
        case "product":
            return emit.binary(MulOp, emit.binary(RsubOp, emit.cast(kept, "f32"), 1.0), LEAST["f32"])
        case "filled bias":
            return emit(MaskedFillOp, bias, emit(LogicalNotOp, kept), value=ScalarAttr.of(LEAST["f32"]))
        case "added bias":
            return emit(AddOp, bias, emit(WhereOp, kept, zero, least))
        case "scaled":
            return emit.binary(MulOp, emit(WhereOp, kept, zero, least), 0.25)
    raise AssertionError(form)


def module_of(what: tuple, rows: int, columns: int, start: int, form: str, empty_row: str) -> ModuleOp:
    shapes = [(BATCH, HEADS, n, FEATURES) for n in (rows, columns, columns)]
    kinds = [types.tensor("f32", shape) for shape in shapes]
    kinds += [types.tensor("i1", (BATCH, columns)), types.tensor("i1", (rows, columns))]
    kinds += [types.tensor("f32", (1, HEADS, rows, columns))]

    def body(builder: Builder, arguments: Sequence[SSAValue]) -> Sequence[SSAValue]:
        q, k, v, keys, free, bias = arguments
        emit = Emitter(builder, _Nowhere)
        masks = Masks(emit, rows, columns, start, keys, free)
        mask = as_mask(emit, masks.build(what), form, bias)
        return [emit(AttentionOp, q, k, v, mask, empty_row=StringAttr(empty_row))]

    return function(kinds, body)


_Nowhere: Operation = ModuleOp([])
FORMS = ["boolean", "where", "infinite", "product", "filled bias", "added bias", "scaled"]


@settings(max_examples=250, deadline=None)
@given(
    what=condition,
    rows=st.integers(1, 6),
    more=st.integers(-2, 4),
    start=st.integers(0, 3),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("pipeline", ["classify-masks", "classify-masks,materialize-masks"])
def test_attention_keeps_its_value(
    pipeline: str, what: tuple, rows: int, more: int, start: int, form: str, seed: int
) -> None:
    module = module_of(what, rows, max(rows + more, 1), start, form, "zero")
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for argument in next(iter(module.body.block.ops)).body.block.args:  # pyright: ignore[reportAttributeAccessIssue]
        shape = tuple(int(n) for n in types.shape(argument))  # pyright: ignore[reportArgumentType]
        random = torch.randn(shape, generator=generator)
        inputs.append(random > -0.3 if types.dtype(argument) == "i1" else random)
    (before,) = interpret(module, inputs)
    run_pipeline(module, pipelines.parse(pipeline), context=context())
    module.verify()
    (after,) = interpret(module, inputs)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
