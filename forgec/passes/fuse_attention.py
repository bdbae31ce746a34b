"""Attention that the model spells out, as one op: products, scale, mask and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.locations import inherit
from forgec.ir.ops.attention import LEAST, AttentionOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, EqOp, LogicalOrOp, MaximumOp, MulOp, NeOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.reduction import SoftmaxOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, SliceOp
from forgec.ir.ops.unary import CastOp, ExpOp, LogicalNotOp, NegOp
from forgec.passes.attention_frames import REARRANGEMENTS, Builder, Frame, frame_of
from forgec.passes.attention_products import is_dead, is_of_product, reaches_product
from forgec.passes.attention_scores import Refused, Scores, Term, read_scores
from forgec.passes.attention_weights import Factor, Gate, Use, read_use
from forgec.passes.classify_masks import element_of, keeps_every_row
from forgec.passes.mask_elements import Elements
from forgec.passes.mask_gates import Gates
from forgec.passes.mask_levels import holds_masks
from forgec.passes.number_ranges import masks, swallows
from forgec.passes.patterns import missed, number, substitute
from forgec.passes.rewriting import blocks
from forgec.passes.rewriting import replace as replace_op
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
    given a column of sinks (the first or the last one), and shifted by their maximum, in the order that
    ``forge.attention`` pins; batch and heads may be one dimension in any part. Numbers in the place of scores that
    scores may be lower than (-1e4) are a bias, with ``replaced`` scores. Factors of rows of weights become those of
    the result, factors of columns those of the value. What a mask means is left to ``classify-masks``. A row of which
    nothing is kept is NaN where masked scores are -inf, and the mean where all of them became the same finite number;
    in float16, where a score is not lost in what is added to it, scores with such a mask stay as they are unless no
    row can be empty.

    Order: before passes that would take softmax and scale for something of their own; after ``canonicalize``, which
    leaves one chain of views between products.
    """

    name = "fuse-attention"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            order = {current: place for place, current in enumerate(block.ops)}
            for current in list(order):
                if isinstance(current, SoftmaxOp) and types.rank(current.input) - current.dim.data in (1, 2):
                    _join_products(current, order)
                    _fuse(current)
                elif isinstance(current, (ExpOp, SoftmaxOp)):
                    _remark_on(current)


def _remark_on(op: ExpOp | SoftmaxOp) -> None:
    """Say what keeps exponentials between two products, or a softmax of other dimensions, from being attention."""
    if is_of_product(op.input) and reaches_product(op) and not is_dead(op):
        exponential = "it has exponentials that are no softmax"
        keys = "its keys are none of the last two dimensions of its softmax"
        missed(op, f"attention is not fused: {exponential if isinstance(op, ExpOp) else keys}")


def _fuse(softmax: SoftmaxOp) -> None:
    if types.rank(softmax.input) < 3:
        return
    build = Builder()
    use = None
    try:
        use = read_use(softmax)
        scores = None if use is None else read_scores(softmax)
        if use is None or scores is None:
            return
        _replace(build, softmax, use, scores)
    except (Refused, VerifyException) as exc:
        build.discard()
        where = exc.op if isinstance(exc, Refused) else None
        if use is not None or is_of_product(softmax.input):
            missed(where or (softmax if use is None else use.product), f"attention is not fused: {exc}")


def _join_products(softmax: SoftmaxOp, order: dict[Operation, int]) -> None:
    """Make one product with all values of several products that take the same weights (differential attention)."""
    products = [use.operation for use in softmax.result.uses]
    if softmax.dim.data != types.rank(softmax.input) - 1:
        return
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
        replace_op(op, part.results, [part])


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
        return read_scores(softmax)
    except Refused:
        return None


def _replace(build: Builder, softmax: SoftmaxOp, use: Use, scores: Scores) -> None:
    product = use.product
    total = types.shape(softmax.input)[softmax.dim.data]
    width = types.shape(scores.product.result)[-2 if scores.turned else -1]
    start = 1 if scores.sinks is not None and scores.sinks_first else 0
    if use.columns != width or use.start != start or (scores.sinks is None and total != width):
        raise Refused("some of its columns are dropped")
    terms, gates = _zeroed(use, _collapsed(scores.terms[::-1]))
    query, key, factor, query_scale = _scaled(build, scores)
    value = build.transpose_last(use.value) if use.turned else use.value
    leads = (*scores.leads, *use.leads)
    if use.joined:
        value = build.one_head(value)
    else:
        leads = (*leads, types.shape(product.result)[:-2])
    frame = frame_of(leads, query)
    if frame is None:
        raise Refused("batch and heads are regrouped on the way")
    query, key, value = _one_dtype(build, query, key, value)
    query = build.to_frame(query, frame)
    key, value = (build.to_frame(v, frame) for v in (key, value))
    value = _weighted(build, value, use, gates, frame)
    heads = {types.shape(key)[-3], types.shape(value)[-3]}
    if len(heads) > 1:
        widest = next(extent for extent in heads if extent != 1)
        key, value = (build.broadcast_dim(v, -3, widest) for v in (key, value))
    shape = (*frame, types.shape(query)[-2], types.shape(key)[-2])
    mask, replaced, empty_row = _mask(build, terms, types.dtype(scores.product.result), shape)
    if len(gates) < len(use.gates) or scores.sinks is not None:
        empty_row = "zero"
    work = types.promote(types.dtype(softmax.input), types.dtype(scores.product.result))
    if mask is not None and types.dtype(mask) != "i1":
        work = _dtype_of_sums(terms, work)
    sinks = None if scores.sinks is None else _sinks(build, scores.sinks, frame, work)
    properties: dict[str, Attribute] = {"scale": ScalarAttr.of(factor), "softmax_dtype": StringAttr(work)}
    properties["empty_row"] = StringAttr(empty_row if sinks is None else "zero")
    if query_scale is not None:
        properties["query_scale"] = ScalarAttr.of(query_scale)
    if scores.softcap is not None:
        properties["softcap"] = ScalarAttr.of(scores.softcap)
    attention = build.insert(AttentionOp.make([query, key, value, mask, sinks, None, None, replaced], properties))
    for factor in use.rows:
        attention = _multiplied(build, attention, factor, frame)
    result = build.cast(attention, types.dtype(product.result))
    result = build.reshape(build.transpose_last(result) if use.turned else result, types.shape(product.result))
    build.in_place_of(result, product.result)
    substitute(product, build.ops, [scores.product.op, softmax], what="attention of a softmax between two products")


def _scaled(build: Builder, scores: Scores) -> tuple[SSAValue, SSAValue, float, float | None]:
    """Query, key, what multiplies their product, and the scale that the query has before it.

    In float32 and wider, all factors become one. Narrower numbers are rounded after each, so that of the query stays
    its own and that of the key stays where it is.
    """
    query, key = scores.product.lhs, build.transpose_last(scores.product.rhs)
    if scores.turned:
        query, key = key, query
    if scores.rows is not None:
        query = build.reshape(query, (*types.shape(query)[:-2], *scores.rows, types.shape(query)[-1]))
        key = build.one_head(key)
    factor, query_scale = scores.factor, None
    for rows, by in scores.row_factors:
        query = build.insert(by.make([query, rows]))
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


def _collapsed(terms: list[Term]) -> list[Term]:
    """The terms, the first one first, with ``s · kept + (1 - kept) · c`` as one that makes scores c."""
    found: list[Term] = []
    for term in terms:
        last = found[-1] if found else None
        fill = None if last is None else _fill_of_both(last, term)
        if last is None or fill is None:
            found.append(term)
        else:
            found[-1] = replace(last, fill=fill)
    return found


def _fill_of_both(kept: Term, added: Term) -> float | None:
    """What scores become that one term makes 0 and the next one adds a number to; None if they do nothing of the kind,
    or add something to other scores.
    """
    if not kept.keeps or kept.fill != 0 or kept.value is None or added.value is None or added.keeps is not None:
        return None
    alike = (kept.shape, kept.dtype, kept.turned) == (added.shape, added.dtype, added.turned)
    if not alike or kept.turned or kept.split or added.split:
        return None
    gates = Gates(kept.shape)
    found = gates.levels(added.value)
    return found[1] * added.factor if found is not None and found[0] == gates.kept(kept.value) else None


def _zeroed(use: Use, terms: list[Term]) -> tuple[list[Term], list[Gate]]:
    """The terms, and the gates of weights that are not among them. Where weights are made 0 after the softmax by the
    conditions that filled scores before it, these fill with -inf, which gives the same, also in a row with nothing
    left. Other conditions have to be those of columns, which may as well make values 0.
    """
    filled = [term for term in terms if term.keeps is not None and masks(term.fill, term.dtype)]
    if use.gates and filled and not any(term.turned for term in terms) and _same(filled, use.gates):
        return [replace(term, fill=-float("inf")) if term in filled else term for term in terms], []
    for gate in use.gates:
        if types.rank(gate.value) > 1 and types.shape(gate.value)[-2] != 1:
            raise Refused("its weights are masked after the softmax, and not by what the scores were")
    return terms, use.gates


def _same(terms: list[Term], gates: list[Gate]) -> bool:
    """True if scores were filled under the conditions under which weights were made 0."""
    if {(term.value, term.keeps) for term in terms} == {(gate.value, gate.keeps) for gate in gates}:
        return True
    shapes = {term.shape for term in terms} | {gate.shape for gate in gates}
    if len(shapes) > 1 or any(term.split for term in terms):
        return False
    read = Gates(shapes.pop())
    sides = [
        {kept for part in parts if part.value is not None for kept in read.kept(part.value, not part.keeps)}
        for parts in (terms, gates)
    ]
    return sides[0] == sides[1]


def _weighted(build: Builder, value: SSAValue, use: Use, gates: list[Gate], frame: Frame) -> SSAValue:
    """The value with the factors of columns, and with 0 where a gate makes all weights of a column 0."""
    places = [Factor(gate.value, gate.shape[:-2], MulOp) for gate in gates]
    for gate in gates:
        if types.dtype(gate.value) == "i1":
            places.remove(Factor(gate.value, gate.shape[:-2], MulOp))
            rows = _by_row(build, gate.value, gate.shape[:-2], frame)
            shut = build.insert(LogicalNotOp.make([rows])) if gate.keeps else rows
            value = build.filled(value, shut, 0.0)
    for factor in (*places, *use.places):
        assert isinstance(factor.value, SSAValue), "numbers are factors of rows"
        rows = _by_row(build, factor.value, factor.lead, frame)
        value = build.cast(build.insert(factor.by.make([value, rows])), types.dtype(value))
    return value


def _by_row(build: Builder, value: SSAValue, lead: Frame, frame: Frame) -> SSAValue:
    """What broadcasts along the columns of weights, along the rows of the value."""
    if types.rank(value) == 1:
        value = build.reshape(value, (1, *types.shape(value)))
    return build.to_frame(build.transpose_last(value), frame, lead)


def _multiplied(build: Builder, result: SSAValue, factor: Factor, frame: Frame) -> SSAValue:
    """The product times a factor of the weights' rows."""
    if not isinstance(factor.value, SSAValue):
        return build.insert(factor.by.of(result, factor.value))
    rows = factor.value
    if types.rank(rows) > 0:
        rows = build.to_frame(rows, frame, factor.lead)
    return build.cast(build.insert(factor.by.make([result, rows])), types.dtype(result))


def _mask(
    build: Builder, terms: Sequence[Term], dtype: str, shape: tuple[Extent, ...]
) -> tuple[SSAValue | None, SSAValue | None, str]:
    """What the terms make of scores of 0; where they stand in the place of scores; and what a row has of which they
    leave nothing. The first is booleans if all that they do is to give masked scores one number that no score is lower
    than. Raises Refused for numbers that float16 does not tell from scores.
    """
    frame = shape[:-2]
    if not terms:
        return None, None, "zero"
    mask = None
    hard = [_is_hard(term, terms[place + 1 :]) for place, term in enumerate(terms)]
    if all(term.keeps is not None for term in terms) and len({term.fill for term in terms}) == 1 and all(hard):
        for term in terms:
            kept = _kept(build, term, frame)
            mask = kept if mask is None else build.logical_and(mask, kept)
        return mask, None, "nan" if terms[0].fill == -float("inf") else "uniform"
    fills = {
        term.fill for term, is_hard in zip(terms, hard, strict=True)
        if term.keeps is not None and is_hard and term.fill != -float("inf")
    }  # fmt: skip
    if len(fills) > 1 and not all(swallows(fill, dtype) for fill in fills):
        raise Refused("masked scores get different numbers")
    replaced: SSAValue | None = None
    softly = [term for term, is_hard in zip(terms, hard, strict=True) if term.keeps is not None and not is_hard]
    for term in softly:
        other = build.insert(LogicalNotOp.make([_kept(build, term, frame)]))
        replaced = other if replaced is None else build.insert(LogicalOrOp.make([replaced, other]))
    for term in _together(build, terms):
        mask = _with_term(build, term, frame, mask, dtype, is_soft=term in softly)
    if replaced is not None and mask is None:
        mask = build.full(0.0, dtype)
    added = any(term.keeps is None for term in terms)
    if mask is not None and (added or not softly) and any(term.dtype == "f16" for term in terms):
        elements = Elements(shape)
        uncertain = holds_masks(element_of(mask, shape, elements), types.dtype(mask))
        if uncertain and not keeps_every_row(mask, shape, elements):
            raise Refused(
                "its mask holds numbers in which float16 does not lose the scores of a row that keeps nothing"
            )
    return mask, replaced, "nan"


def _dtype_of_sums(terms: Sequence[Term], work: str) -> str:
    """In which dtype scores and masks are added: that of the scores then, also where the softmax is of wider ones. A
    great number leaves more of a score in a wider dtype. Raises Refused if it is not one for all sums.
    """
    found = {term.dtype for term in terms if term.keeps is None and term.value is not None}
    if len(found) > 1:
        raise Refused(f"masks are added to its scores in {' and in '.join(sorted(found))}")
    return found.pop() if found else work


def _is_hard(term: Term, later: Sequence[Term]) -> bool:
    """True for a number in the place of scores beside which nothing of a weight is left; -1e9 is none where more is
    added to it.
    """
    last = all(other.keeps is not None for other in later)
    return (masks if last or term.dtype == "f16" else swallows)(term.fill, term.dtype)


def _kept(build: Builder, term: Term, frame: Frame) -> SSAValue:
    """Booleans that are true where a term keeps scores."""
    value = _framed(build, term, frame)
    if types.dtype(value) != "i1":
        return build.insert((NeOp if term.keeps else EqOp).of(value, 0))
    return value if term.keeps else build.insert(LogicalNotOp.make([value]))


def _together(build: Builder, terms: Sequence[Term]) -> list[Term]:
    """Neighbours that were added to scores of one split shape, as one: each alone would be broadcast in full."""
    found: list[Term] = []
    for term in terms:
        last = found[-1] if found else None
        alike = last is not None and (last.split, last.factor) == (term.split, term.factor)
        if last is None or not alike or None in (term.split, term.value, last.value):
            found.append(term)
        else:
            found[-1] = replace(last, value=build.insert(AddOp.make([last.value, term.value])))
    return found


def _with_term(
    build: Builder, term: Term, frame: Frame, mask: SSAValue | None, dtype: str, *, is_soft: bool
) -> SSAValue | None:
    dtype = dtype if mask is None else types.dtype(mask)
    if term.value is None:
        return None if mask is None else build.insert(MaximumOp.make([mask, build.full(term.fill, dtype)]))
    if term.keeps is not None:
        if is_soft and term.fill == 0 and mask is None:
            return None
        before = build.full(0.0, dtype) if mask is None else mask
        fill = build.full(term.fill if is_soft else _fill(term.fill, dtype), dtype)
        value = _framed(build, term, frame)
        if types.dtype(value) != "i1":
            value = build.insert(NeOp.of(value, 0))
        return build.insert(WhereOp.make([value, before, fill] if term.keeps else [value, fill, before]))
    value = _framed(build, term, frame)
    if term.factor == -1.0:
        value = build.insert(NegOp.make([value]))
    elif term.factor != 1.0:
        value = build.insert(MulOp.of(value, term.factor))
    return value if mask is None else build.insert(AddOp.make([mask, value]))


def _fill(number: float, dtype: str) -> float:
    """What masks as a number did in the place of scores: a finite one that is finite in the dtype and swallows any
    score; -inf as it is.
    """
    if number == -float("inf"):
        return number
    return max(number, LEAST[dtype]) if swallows(number, dtype) else LEAST[dtype]


def _framed(build: Builder, term: Term, frame: Frame) -> SSAValue:
    assert term.value is not None
    value = term.value
    if term.split is not None:
        value = build.joined(value, term.split, term.shape)
    if term.turned:
        if types.rank(value) == 1:
            value = build.reshape(value, (1, *types.shape(value)))
        value = build.transpose_last(value) if types.rank(value) else value
    return build.to_frame(value, frame, term.lead)


def _sinks(build: Builder, value: SSAValue | float, frame: Frame, dtype: str) -> SSAValue:
    """The logits [H] that were broadcast to one column [*B, H, S, 1]."""
    heads = frame[-1]
    same = number(value) if isinstance(value, SSAValue) else value
    if same is not None:
        properties = {"value": ScalarAttr.of(float(same))}
        return build.insert(FullOp.create(properties=properties, result_types=[types.tensor(dtype, (heads,))]))
    assert isinstance(value, SSAValue), "what is no number is a tensor"
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
