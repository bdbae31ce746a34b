"""Reading back from a softmax to the product of query and key: what was done to the scores on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, DivOp, MaximumOp, MulOp, SubOp
from forgec.ir.ops.order import MaxOp
from forgec.ir.ops.reduction import AmaxOp, SoftmaxOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import ConcatOp, CopyOp, ReshapeOp, TransposeOp
from forgec.ir.ops.spatial import PadOp
from forgec.ir.ops.unary import CastOp, ClampOp, NegOp, TanhOp
from forgec.passes.attention_products import (
    DEPTH,
    Product,
    comes_from_product,
    is_add,
    is_dead,
    leads_to_product,
    name_of,
    product_in,
    swaps_last,
)
from forgec.passes.mask_gates import Gates
from forgec.passes.number_ranges import masks, rounded, swallows
from forgec.passes.patterns import number, through, with_number
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import Extent


class Refused(Exception):
    """Scores that end in a product, with something on the way that attention does not have, ``op`` if one is known."""

    def __init__(self, reason: str, op: Operation | None = None) -> None:
        super().__init__(reason)
        self.op = op


@dataclass
class Term:
    """What was done to scores whose leading extents are ``lead``.

    ``factor`` times the value was added; or (``keeps``) the value is a condition (a boolean, or a factor of 0 and 1):
    true keeps a score, or (False) makes it ``fill``; or, without a value, scores became ``fill`` at least.

    ``shape`` and ``dtype`` are those of the scores, whose rows are the keys where ``turned``; where they were ``split``
    then, that is their shape with rows and columns in parts.
    """

    value: SSAValue | None
    lead: tuple[Extent, ...]
    shape: tuple[Extent, ...]
    dtype: str
    factor: float = 1.0
    keeps: bool | None = None
    fill: float = 0.0
    turned: bool = False
    split: tuple[Extent, ...] | None = None


@dataclass
class Scores:
    """The product, and what its softmax takes of it: ``factor · product``, capped, with the terms, the last one first,
    and beside the sinks, the last column or (``sinks_first``) the first one. ``row_factors`` multiply or divide rows of
    the product. Its rows are keys where it is ``turned``; they are the rows of all heads of shape ``rows`` [H, S] where
    that is given.
    """

    product: Product
    factor: float = 1.0
    softcap: float | None = None
    row_factors: list[tuple[SSAValue, type[MulOp | DivOp]]] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    sinks: SSAValue | float | None = None
    sinks_first: bool = False
    leads: list[tuple[Extent, ...]] = field(default_factory=list)
    turned: bool = False
    rows: tuple[Extent, ...] | None = None


def read_scores(softmax: SoftmaxOp) -> Scores | None:
    """The scores that a softmax is taken of; None if they are no product. Raises Refused if something on the way is
    nothing that attention has, or has in that place.
    """
    value, user = softmax.input, softmax
    reader = _Reader(turned=softmax.dim.data != types.rank(value) - 1)
    for _ in range(DEPTH):
        op = producer(value)
        product = product_in(op)
        if product is not None:
            reader.check_uses(value, user)
            return reader.scores(product)
        step = None if op is None else reader.step(op)
        if step is None or op is None:
            if op is not None and comes_from_product(op):
                raise Refused(f"its scores go through {name_of(op)}, which attention has no place for", op)
            return None
        reader.check_uses(value, user)
        value, user = step, op
    return None


class _Reader:
    """Takes one op after the other, from the softmax back; ``factor`` multiplies all that is still to come."""

    def __init__(self, turned: bool) -> None:
        self.turned = turned
        self.rows: tuple[Extent, ...] | None = None
        self.split: tuple[Extent, ...] | None = None
        self.shape: tuple[Extent, ...] = ()
        self.maxima: list[Operation] = []
        self.factor = 1.0
        self.factors: list[tuple[float, str]] = []
        self.softcap: float | None = None
        self.row_factors: list[tuple[SSAValue, type[MulOp | DivOp]]] = []
        self.terms: list[Term] = []
        self.sinks: SSAValue | float | None = None
        self.sinks_first = False
        self.leads: list[tuple[Extent, ...]] = []
        self.rules: dict[type[Operation], Callable[..., SSAValue | None]] = {
            CastOp: partial(_input, self), CopyOp: partial(_input, self), ReshapeOp: self._reshape, AddOp: self._add,
            AtenOp: self._add, SubOp: self._subtract, MulOp: self._multiply, DivOp: self._multiply,
            MaskedFillOp: self._masked_fill, WhereOp: self._where, MaximumOp: self._maximum, ClampOp: self._clamp,
            TanhOp: self._tanh, ConcatOp: self._concat, PadOp: self._pad, TransposeOp: self._transpose,
            NegOp: self._negate,
        }  # fmt: skip

    def scores(self, product: Product) -> Scores:
        """What was read, down to the product."""
        if self.rows is None:
            self.leads.append(types.shape(product.result)[:-2])
        if self.split is not None:
            raise Refused("its rows are split, but not joined again")
        if isinstance(product.op, AtenOp):
            self._added_to(product.op)
        return Scores(
            product,
            self.factor,
            self.softcap,
            self.row_factors,
            self.terms,
            self.sinks,
            self.sinks_first,
            self.leads,
            self.turned,
            self.rows,
        )

    def check_uses(self, value: SSAValue, user: Operation) -> None:
        """Raises Refused if scores are used by more than what attention does with them."""
        others = (use.operation for use in value.uses if use.operation is not user)
        if any(op not in self.maxima and not is_dead(op) for op in others):
            raise Refused("its scores have other uses")

    def _added_to(self, op: AtenOp) -> None:
        """``beta · input + alpha · product``."""
        places, factors = op.args.arguments
        alpha, beta = (dict(factors).get(name, 1) for name in ("alpha", "beta"))
        if not isinstance(alpha, (int, float)) or not isinstance(beta, (int, float)) or not alpha:
            raise Refused("the factors of its product are no numbers")
        if beta and isinstance(places[0], Reg):
            self._term(op, op.inputs[places[0].id], factor=self.factor * beta)
        self.factor *= alpha

    def step(self, op: Operation) -> SSAValue | None:
        """The operand of a score's op that scores come from; None if it is no such op."""
        rule = self.rules.get(type(op))
        return None if rule is None else rule(op)

    def _reshape(self, op: ReshapeOp) -> SSAValue | None:
        before, after = types.shape(op.input), types.shape(op.result)
        if self.split is not None:
            return self._join(op)
        if len(before) < 3 or len(after) < 3 or before[-1] != after[-1]:
            return self._split(op)
        if self.row_factors:
            raise Refused("the scores are multiplied by a tensor")
        if before[-2] != after[-2]:
            return self._rows_of_heads(op)
        self.leads.append(after[:-2])
        return op.input

    def _rows_of_heads(self, op: ReshapeOp) -> SSAValue | None:
        """``[*B, H · S, T]`` as ``[*B, H, S, T]``: the queries of all heads were rows of one product."""
        before, after = types.shape(op.input), types.shape(op.result)
        if len(after) < 4 or before != (*after[:-3], after[-3] * after[-2], after[-1]):
            return self._split(op)
        if self.turned or self.rows is not None:
            return None
        self.rows = after[-3:-1]
        self.leads.append(after[:-2])
        return op.input

    def _split(self, op: ReshapeOp) -> SSAValue | None:
        """Scores ``[*B, R, C]`` that were several dimensions, of rows and of columns, as those of an image."""
        before, after = types.shape(op.input), types.shape(op.result)
        if len(after) < 3 or len(before) <= len(after) or self.rows is not None or self.turned:
            return None
        lead = next((n for n in range(1, len(before) - 2) if _splits(before, after, n)), None)
        if lead is None:
            return None
        self.leads.append(after[:-2])
        self.split = before
        self.shape = after
        return op.input

    def _join(self, op: ReshapeOp) -> SSAValue | None:
        if types.shape(op.input) != self.shape:
            return None
        self.split = None
        return op.input

    def _transpose(self, op: TransposeOp) -> SSAValue | None:
        if not swaps_last(op) or self.rows is not None or self.split is not None:
            return None
        self.turned = not self.turned
        return op.input

    def _term(
        self,
        op: Operation,
        value: SSAValue | None,
        *,
        factor: float = 1.0,
        keeps: bool | None = None,
        fill: float = 0.0,
    ) -> None:
        if self.softcap is not None:
            raise Refused("something is added to the scores before they are capped")
        if self.row_factors:
            raise Refused("the scores are multiplied by a tensor after a mask")
        if self.rows is not None:
            raise Refused("something is done to the scores of all heads as rows of one")
        shape = types.shape(op.results[0]) if self.split is None else self.shape
        dtype = types.dtype(op.results[0])
        self.terms.append(Term(value, shape[:-2], shape, dtype, factor, keeps, fill, self.turned, self.split))

    def _add(self, op: Operation) -> SSAValue | None:
        if not is_add(op):
            return None
        if isinstance(op, AddOp):
            found = with_number(op)
            if found is not None:
                return found[0] if found[1] == 0 and types.shape(found[0]) == types.shape(op.result) else None
        left, right = op.operands[0], op.operands[1]
        for scores, other in ((left, right), (right, left)):
            if types.shape(scores) == types.shape(op.results[0]) and leads_to_product(scores):
                self._term(op, other, factor=self.factor)
                return scores
        return None

    def _subtract(self, op: SubOp) -> SSAValue | None:
        if op.rhs is None or types.shape(op.lhs) != types.shape(op.result) or not leads_to_product(op.lhs):
            return None
        maximum = _maximum_of(op.rhs, op.lhs, types.rank(op.lhs) - (2 if self.turned else 1))
        if maximum is None or self.split is not None:
            self._term(op, op.rhs, factor=-self.factor)
        elif self.softcap is not None or self.sinks is not None:
            raise Refused("the scores are shifted by their maximum before they are capped or get sinks")
        else:
            self.maxima.append(maximum)
        return op.lhs

    def _multiply(self, op: MulOp | DivOp) -> SSAValue | None:
        found = with_number(op)
        if found is not None:
            value, by = found
            if by == 0 or types.shape(value) != types.shape(op.result):
                return None
            by = 1 / by if isinstance(op, DivOp) else by
            self.factor *= by
            self.factors.append((by, types.dtype(op.result)))
            return value
        if op.rhs is None:
            return None
        for scores, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)) if isinstance(op, MulOp) else ((op.lhs, op.rhs),):
            if types.shape(scores) == types.shape(op.result) and leads_to_product(scores):
                return self._multiply_rows(op, scores, other)
        return None

    def _negate(self, op: NegOp) -> SSAValue:
        self.factor = -self.factor
        self.factors.append((-1.0, types.dtype(op.result)))
        return op.input

    def _multiply_rows(self, op: MulOp | DivOp, scores: SSAValue, other: SSAValue) -> SSAValue:
        """A factor for each row (or head) is one of the query; one of 0 and 1 puts 0 in the place of scores."""
        constant = types.rank(other) == 0 or types.shape(other)[-1] == 1
        exact = types.dtype(other) in ("f32", "f64") and types.dtype(other) == types.dtype(scores)
        if self.turned or self.rows is not None or self.split is not None:
            constant = types.rank(other) == 0
        if constant and exact:
            self.row_factors.append((other, type(op)))
            return scores
        if isinstance(op, MulOp) and self.split is None and Gates(types.shape(scores)).is_gate(other):
            self._term(op, other, keeps=True, fill=0.0)
            return scores
        raise Refused("the scores are multiplied by a tensor", op)

    def _masked_fill(self, op: MaskedFillOp) -> SSAValue | None:
        if types.shape(op.input) != types.shape(op.result) or not leads_to_product(op.input):
            return None
        return self._fill(op, op.input, op.mask, float(op.value.value), keeps=False)

    def _where(self, op: WhereOp) -> SSAValue | None:
        for scores, other, keeps in ((op.then, op.otherwise, True), (op.otherwise, op.then, False)):
            if types.shape(scores) == types.shape(op.result) and leads_to_product(scores):
                fill = number(other)
                if fill is None:
                    raise Refused("masked scores get no fixed number")
                return self._fill(op, scores, op.condition, float(fill), keeps=keeps)
        return None

    def _fill(self, op: Operation, scores: SSAValue, condition: SSAValue, fill: float, *, keeps: bool) -> SSAValue:
        if self.split is not None:
            raise Refused("scores whose rows and columns are split are masked")
        dtype = types.dtype(op.results[0])
        fill = self._multiplied(fill, dtype)
        if fill != fill or fill == float("inf"):
            raise Refused(f"masked scores get {fill:g}", op)
        if types.dtype(condition) != "i1":
            raise Refused("the condition of a mask is no boolean")
        self._term(op, condition, keeps=keeps, fill=fill)
        return scores

    def _multiplied(self, fill: float, dtype: str) -> float:
        """What a number in the place of a score becomes, rounded where scores are."""
        fill = rounded(fill, dtype)
        for by, narrow in reversed(self.factors):
            fill = rounded(fill * by, narrow)
        return fill

    def _maximum(self, op: MaximumOp) -> SSAValue | None:
        found = with_number(op)
        return None if found is None else self._at_least(op, found[0], float(found[1]))

    def _clamp(self, op: ClampOp) -> SSAValue | None:
        if op.lower is None or op.upper is not None:
            return None
        return self._at_least(op, op.input, float(op.lower.value))

    def _at_least(self, op: Operation, value: SSAValue, least: float) -> SSAValue | None:
        if types.shape(value) != types.shape(op.results[0]) or not leads_to_product(value):
            return None
        dtype = types.dtype(value)
        if not (swallows(least, dtype) or (dtype == "f16" and masks(least, dtype))) or self.factor <= 0:
            raise Refused(f"scores are {least:g} at least")
        self._term(op, None, fill=self._multiplied(least, dtype))
        return value

    def _tanh(self, op: TanhOp) -> SSAValue | None:
        if not leads_to_product(op.input):
            return None
        if self.softcap is not None or self.factor <= 0:
            raise Refused("the scores are capped twice")
        if self.row_factors:
            raise Refused("the scores are multiplied by a tensor after the cap")
        self.softcap = self.factor
        return op.input

    def _concat(self, op: ConcatOp) -> SSAValue | None:
        if len(op.inputs) != 2 or op.dim.data != types.rank(op.result) - 1:
            return None
        for scores, sinks in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
            if not leads_to_product(sinks) and leads_to_product(scores):
                return self._with_sinks(op, scores, sinks, types.shape(sinks)[-1], first=sinks is op.inputs[0])
        return None

    def _pad(self, op: PadOp) -> SSAValue | None:
        """A column of one number, as softmax with 1 in the sum of its denominator has it."""
        low, high = op.low.data, op.high.data
        if op.value is None or any((*low[:-1], *high[:-1])) or not leads_to_product(op.input):
            return None
        return self._with_sinks(op, op.input, float(op.value.value), low[-1] + high[-1], first=low[-1] == 1)

    def _with_sinks(
        self, op: Operation, scores: SSAValue, sinks: SSAValue | float, columns: Extent, *, first: bool
    ) -> SSAValue | None:
        if self.turned or self.rows is not None or self.split is not None:
            return None
        if self.sinks is not None or self.terms or self.factor != 1.0 or self.softcap is not None or self.row_factors:
            raise Refused("the column of sinks is not the last thing that scores get", op)
        if columns != 1:
            raise Refused("more than one column joins the scores", op)
        self.sinks, self.sinks_first = sinks, first
        return scores


def _input(reader: _Reader, op: CastOp | CopyOp) -> SSAValue | None:
    return op.input if types.dtype(op.input) in types.FLOATS else None


def _maximum_of(value: SSAValue, of: SSAValue, dim: int) -> Operation | None:
    """The op that takes the greatest element of ``of`` along a dimension, if a value is what it gives, with an extent
    of 1 there.
    """
    kept = tuple(1 if place == dim else extent for place, extent in enumerate(types.shape(of)))
    if (1,) * (len(kept) - types.rank(value)) + types.shape(value) != kept:
        return None
    value = through(value, ReshapeOp, CopyOp)
    op = producer(value)
    if isinstance(op, AmaxOp):
        return op if op.input is of and op.dims.data == (dim,) else None
    return op if isinstance(op, MaxOp) and op.input is of and value is op.results[0] and op.dim.data == dim else None


def _splits(split: Sequence[Extent], shape: Sequence[Extent], lead: int) -> bool:
    """True if ``split`` has the leading extents of ``shape``, and then its rows and its columns in parts."""
    if tuple(split[:lead]) != tuple(shape[:-2]):
        return False
    return any(
        (prod(split[lead:at], start=1), prod(split[at:], start=1)) == tuple(shape[-2:])
        for at in range(lead, len(split))
    )
