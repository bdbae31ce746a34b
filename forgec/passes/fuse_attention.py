"""Attention that the model spells out, as one op: products, scale, mask and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.locations import inherit
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, MaximumOp, MulOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.reduction import SoftmaxOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp, SliceOp
from forgec.ir.ops.unary import CastOp, LogicalNotOp, NegOp
from forgec.passes.attention_frames import REARRANGEMENTS, Builder, Frame, frame_of
from forgec.passes.attention_scores import Refused, Scores, Term, read_scores
from forgec.passes.patterns import missed, substitute
from forgec.passes.rewriting import blocks, replace
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class FuseAttention(ModulePass):
    """Make one ``forge.attention`` of a softmax between two products.

    Before::

        %0 = forge.matmul %q, %kt : (tensor<1x4x9x8xf32>, tensor<1x4x8x9xf32>) -> tensor<1x4x9x9xf32>
        %1 = forge.mul %0, 0.5 : (tensor<1x4x9x9xf32>) -> tensor<1x4x9x9xf32>
        %2 = forge.add %1, %mask : (tensor<1x4x9x9xf32>, tensor<9x9xf32>) -> tensor<1x4x9x9xf32>
        %3 = forge.softmax %2 dim 3 : (tensor<1x4x9x9xf32>) -> tensor<1x4x9x9xf32>
        %4 = forge.matmul %3, %v : (tensor<1x4x9x9xf32>, tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32>

    After::

        %k = forge.transpose %kt [0, 1, 3, 2] : (tensor<1x4x8x9xf32>) -> tensor<1x4x9x8xf32, …>
        %4 = forge.attention %q, %k, %v mask %mask scale 0.5 : (…) -> tensor<1x4x9x8xf32>

    Scores may be scaled (before or after the product), soft-capped, masked by addition, ``where`` or ``masked_fill``,
    given a column of sinks, and shifted by their maximum, in the order that ``forge.attention`` pins; batch and heads
    may be one dimension in any part. What a mask means is left to ``classify-masks``. A mask of -inf or by booleans
    that leaves nothing of a row gives 0 there, where the spelled-out softmax gives NaN.

    Order: before passes that would take softmax and scale for something of their own; after ``canonicalize``, which
    leaves one chain of views between products.
    """

    name = "fuse-attention"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            order = {current: place for place, current in enumerate(block.ops)}
            for current in list(order):
                if isinstance(current, SoftmaxOp) and current.dim.data == types.rank(current.input) - 1:
                    _join_products(current, order)
                    _fuse(current)


def _fuse(softmax: SoftmaxOp) -> None:
    if types.rank(softmax.input) < 3 or (found := _product_of(softmax)) is None:
        return
    product, leads, columns = found
    build = Builder()
    try:
        scores = read_scores(softmax.input)
        if scores is None:
            return
        _replace(build, softmax, product, scores, (*scores.leads, *leads), columns)
    except (Refused, VerifyException) as exc:
        build.discard()
        missed(product, f"attention is not fused: {exc}")


def _join_products(softmax: SoftmaxOp, order: dict[Operation, int]) -> None:
    """Make one product with all values of several products that take the same weights (differential attention)."""
    products = [use.operation for use in softmax.result.uses]
    if len(products) < 2 or not all(isinstance(op, MatmulOp) and op in order for op in products):
        return
    products.sort(key=order.__getitem__)
    values = [op.operands[1] for op in products]
    shapes = {types.shape(value)[:-1] for value in values}
    if softmax.result in values or len(shapes) > 1 or types.rank(values[0]) < 3 or _read(softmax) is None:
        return
    first = products[0]
    if not all(_hoist(value, first, order) for value in values[1:]):
        return
    last = IntAttr(types.rank(values[0]) - 1)
    joined = ConcatOp.make(values, {"dim": last})
    product = MatmulOp.make([softmax.result, joined.result])
    for new in (joined, product):
        first.parent_block().insert_op_before(inherit(new, first), first)  # pyright: ignore
        order[new] = order[first]
    start: Extent = 0
    for op in products:
        place = {"dim": IntAttr(types.rank(op.results[0]) - 1), "start": ExtentAttr(start), "step": ExtentAttr(1)}
        kind = types.tensor(types.dtype(product.result), types.shape(op.results[0]))
        part = SliceOp.create(operands=[product.result], properties=place, result_types=[kind])
        start = start + types.shape(op.results[0])[-1]
        replace(op, part.results, [part])


def _hoist(value: SSAValue, before: Operation, order: dict[Operation, int]) -> bool:
    """Move what computes a value to a place before an op, if that is no more than rearranging."""
    op = producer(value)
    if op is None or order.get(op, -1) < order[before]:
        return True
    block = before.parent_block()
    if block is None or op not in order or not isinstance(op, (*REARRANGEMENTS, CastOp)):
        return False
    if not _hoist(op.operands[0], before, order):
        return False
    op.detach()
    block.insert_op_before(op, before)
    order[op] = order[before] - 1
    return True


def _read(softmax: SoftmaxOp) -> Scores | None:
    try:
        return read_scores(softmax.input)
    except Refused:
        return None


def _product_of(softmax: SoftmaxOp) -> tuple[MatmulOp, list[tuple[Extent, ...]], Extent] | None:
    """The product with the value that is the only use of the weights, the leading extents that the weights have on the
    way there, and how many columns of them take part."""
    value, leads = softmax.result, []
    while True:
        users = [use.operation for use in value.uses]
        if len(users) != 1:
            products = [user for user in users if isinstance(user, MatmulOp) and user.lhs is value]
            if products:
                missed(products[0], "attention is not fused: its weights have other uses")
            return None
        (user,) = users
        leads.append(types.shape(value)[:-2])
        match user:
            case MatmulOp() if user.lhs is value and types.rank(user.rhs) >= 3:
                return user, leads, types.shape(value)[-1]
            case CastOp() if types.dtype(user.result) in types.FLOATS:
                value = user.result
            case CopyOp():
                value = user.result
            case ReshapeOp() if types.shape(user.result)[-2:] == types.shape(value)[-2:]:
                value = user.result
            case SliceOp() if user.dim.data == types.rank(value) - 1 and user.start.data == 0 and user.step.data == 1:
                value = user.result
            case _:
                return None


def _replace(
    build: Builder,
    softmax: SoftmaxOp,
    product: MatmulOp,
    scores: Scores,
    leads: Sequence[tuple[Extent, ...]],
    columns: Extent,
) -> None:
    total = types.shape(softmax.input)[-1]
    width = types.shape(scores.product.result)[-1]
    if columns != width or (scores.sinks is None and total != width):
        raise Refused("some of its columns are dropped")
    query, key, factor, query_scale = _scaled(build, scores)
    frame = frame_of((*leads, types.shape(product.result)[:-2]), query)
    if frame is None:
        raise Refused("batch and heads are regrouped on the way")
    query, key, value = _one_dtype(build, query, key, product.rhs)
    query = build.to_frame(query, frame)
    key, value = (build.to_frame(v, frame) for v in (key, value))
    heads = {types.shape(key)[-3], types.shape(value)[-3]}
    if len(heads) > 1:
        widest = next(extent for extent in heads if extent != 1)
        key, value = (build.broadcast_dim(v, -3, widest) for v in (key, value))
    mask = _mask(build, scores, frame)
    sinks = None if scores.sinks is None else _sinks(build, scores.sinks, frame)
    work = types.promote(types.dtype(softmax.input), types.dtype(scores.product.result))
    properties: dict[str, Attribute] = {"scale": ScalarAttr.of(factor), "softmax_dtype": StringAttr(work)}
    if query_scale is not None:
        properties["query_scale"] = ScalarAttr.of(query_scale)
    if scores.softcap is not None:
        properties["softcap"] = ScalarAttr.of(scores.softcap)
    attention = build.insert(AttentionOp.make([query, key, value, mask, sinks], properties))
    result = build.reshape(build.cast(attention, types.dtype(product.result)), types.shape(product.result))
    build.in_place_of(result, product.result)
    substitute(product, build.ops, [scores.product.op, softmax], what="attention of a softmax between two products")


def _scaled(build: Builder, scores: Scores) -> tuple[SSAValue, SSAValue, float, float | None]:
    """Query, key, what multiplies their product, and the scale that the query has before it.

    In float32 and wider, all factors become one. Narrower numbers are rounded after each, so that of the query stays
    its own and that of the key stays where it is.
    """
    query, key = scores.product.lhs, build.transpose_last(scores.product.rhs)
    factor, query_scale = scores.factor, None
    if scores.head_factor is not None:
        query = build.insert(MulOp.make([query, scores.head_factor]))
    query, before = build.unscaled(query)
    if types.dtype(query) in ("f32", "f64"):
        key, other = build.unscaled(key)
        return query, key, factor * before * other, None
    if before != 1.0:
        query_scale = before
    return query, key, factor, query_scale


def _one_dtype(build: Builder, query: SSAValue, key: SSAValue, value: SSAValue) -> tuple[SSAValue, SSAValue, SSAValue]:
    """The three in one dtype: scores are computed in that of the softmax anyway, so upcasts before are left out."""
    narrow = types.dtype(value)
    if types.dtype(query) == narrow:
        return query, key, value
    plain = [build.uncast(v, narrow) for v in (query, key)]
    if plain[0] is not None and plain[1] is not None:
        return plain[0], plain[1], value
    return query, key, build.cast(value, types.dtype(query))


def _mask(build: Builder, scores: Scores, frame: Frame) -> SSAValue | None:
    """What the terms make of scores of 0; booleans if all they do is to mask by -inf."""
    terms = scores.terms[::-1]
    if not terms:
        return None
    mask = None
    if all(term.keeps is not None and term.fill == -float("inf") for term in terms):
        for term in terms:
            kept = _framed(build, term, frame)
            kept = kept if term.keeps else build.insert(LogicalNotOp.make([kept]))
            mask = kept if mask is None else build.logical_and(mask, kept)
        return mask
    for term in terms:
        mask = _with_term(build, term, frame, mask, types.dtype(scores.product.result))
    return mask


def _with_term(build: Builder, term: Term, frame: Frame, mask: SSAValue | None, dtype: str) -> SSAValue | None:
    dtype = dtype if mask is None else types.dtype(mask)
    if term.value is None:
        return None if mask is None else build.insert(MaximumOp.make([mask, build.full(term.fill, dtype)]))
    value = _framed(build, term, frame)
    if term.keeps is not None:
        before = build.full(0.0, dtype) if mask is None else mask
        fill = build.full(term.fill, dtype)
        return build.insert(WhereOp.make([value, before, fill] if term.keeps else [value, fill, before]))
    if term.factor == -1.0:
        value = build.insert(NegOp.make([value]))
    elif term.factor != 1.0:
        value = build.insert(MulOp.of(value, term.factor))
    return value if mask is None else build.insert(AddOp.make([mask, value]))


def _framed(build: Builder, term: Term, frame: Frame) -> SSAValue:
    assert term.value is not None
    return build.to_frame(term.value, frame, term.lead)


def _sinks(build: Builder, value: SSAValue, frame: Frame) -> SSAValue:
    """The logits [H] that were broadcast to one column [*B, H, S, 1]."""
    heads = frame[-1]
    place = types.rank(value) - 3
    while types.numel(value) != heads:
        op = producer(value)
        if not isinstance(op, (BroadcastOp, CopyOp)):
            raise Refused("its sinks are no one logit for each head")
        place += types.rank(op.input) - types.rank(value)
        value = op.input
    if place < 0 or types.shape(value)[place] != heads:
        raise Refused("its sinks are no one logit for each head")
    return build.reshape(value, (heads,))
