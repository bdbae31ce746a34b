"""Normalisations that the model spells out, as one op each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.binary import AddOp, BinaryOp, DivOp, MulOp, PowOp
from forgec.ir.ops.norm import GroupNormOp, LayerNormOp, RmsNormOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, TransposeOp
from forgec.ir.ops.unary import CastOp, ReciprocalOp, RsqrtOp, SqrtOp
from forgec.passes.layouts import give_layout, is_seen
from forgec.passes.norm_statistics import NARROW, centred_of, exact, is_difference_of_squares, same, statistics_of
from forgec.passes.patterns import Number, made_by, missed, number, only_neighbour, substitute, with_number
from forgec.passes.rewriting import blocks
from forgec.passes.vector_norms import length_of
from forgec.runtime.symbolic import Extent

OTHERWISE = "where the mean is far from 0 the squares cancel; (x - mean).square().mean() is as fast, and is fused"
Rounding = Literal["result", "normalized", "scale"]


@dataclass(frozen=True)
class FuseNorm(ModulePass):
    """Make one op of each RMS norm, layer norm and group norm that is written as arithmetic.

    Before::

        %0 = forge.mul %x, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
        %1 = forge.mean %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
        %2 = forge.add %1, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
        %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
        %4 = forge.mul %x, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
        %5 = forge.mul %w, %4 : (tensor<8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

    After::

        %5 = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

    It starts where a root is taken of a mean of squares and follows what is made of it: weight and bias on either side,
    the weight as a difference from 1, and the casts of half-precision models, whose places the op's ``rounding`` keeps.
    A mean of squares of differences from the mean makes a layer norm, one over groups of channels a group norm, one
    over dimensions that are not last a norm between two transposes. Rows that are divided by their vector norm make an
    RMS norm, too, whose ``eps_form`` is that of the model. Statistics that the model computes in half
    precision stay as they are.

    Order: after ``fuse-rope``; before ``fuse-epilogue``, which joins the residual to a norm that is one op.
    """

    name = "fuse-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, (RsqrtOp, SqrtOp, PowOp))]:
                norm = _match(root)
                if norm is not None:
                    _finish(norm)
            for root in [child for child in block.ops if isinstance(child, DivOp)]:
                found = length_of(root)
                if found is not None:
                    norm = _Norm(
                        found.source, found.dims, False, found.eps, found.root, "result", matched=found.matched
                    )
                    norm.form, norm.factor = found.form, found.factor
                    _finish(norm)


def _finish(norm: _Norm) -> None:
    """Put a norm, with what follows it, in the place of the arithmetic: also with numbers that multiply it, where it is
    of the length of rows, not of their root mean square.
    """
    of_length, root = norm.factor != 1.0, norm.last
    if of_length:
        norm.take_numbers()
    norm.extend()
    if of_length:
        norm.take_numbers()
    tolerance = 1e-12 if types.dtype(norm.source) == "f64" else 1e-7
    if math.isclose(norm.factor, 1.0, rel_tol=tolerance):
        norm.factor = 1.0
    elif not norm.wide:
        missed(root, "no norm was made: a number would multiply what is rounded already")
        return
    norm.rewrite()


def _match(root: RsqrtOp | SqrtOp | PowOp) -> _Norm | None:
    """The norm without its parameters that uses a root."""
    power = _power(root)
    found = None if power is None else statistics_of(root.operands[0], _reshaped(root))
    if found is None:
        if power is not None and is_difference_of_squares(root.operands[0]):
            missed(root, "no norm was made: its variance is mean(x²) - mean(x)², which rounds otherwise", OTHERWISE)
        return None
    if types.dtype(found.source) not in ("f32", "f64"):
        missed(root, f"no norm was made: its statistics are computed in {types.dtype(found.source)}")
        return None
    op, value, divides = _root_user(root, divides=power == 0.5)
    rounded = isinstance(op, CastOp) and not divides
    if isinstance(op, CastOp) and rounded:
        op, value = only_neighbour(op.result), op.result
    if op is None:
        missed(root, "no norm was made: other ops use its statistics, too")
        return None
    norm = _Norm(found.source, found.dims, found.centred, found.eps, op, rounding="scale" if rounded else "result")
    norm.factor = found.factor
    if not norm.start(value, divides):
        missed(root, "no norm was made: what is scaled is not what the mean of squares was taken of")
        return None
    return norm


def _reshaped(root: Operation) -> tuple[Extent, ...]:
    """The shape in which a root is used: its own, or that of the reshape that is its only use."""
    user = only_neighbour(root.results[0])
    return types.shape(user.result if isinstance(user, ReshapeOp) else root.results[0])


def _power(op: RsqrtOp | SqrtOp | PowOp) -> float | None:
    """0.5 for a root, -0.5 for a reciprocal one."""
    if isinstance(op, PowOp):
        found = with_number(op)
        return float(found[1]) if found is not None and found[1] in (0.5, -0.5) else None
    return 0.5 if isinstance(op, SqrtOp) else -0.5


def _root_user(root: Operation, divides: bool) -> tuple[Operation | None, SSAValue, bool]:
    """The op that applies a root, the operand by which, and whether it divides by it."""
    value = root.results[0]
    user = only_neighbour(value)
    if isinstance(user, ReshapeOp):  # the reduced dimensions come back after the root
        value = user.result
        user = only_neighbour(value)
    if divides and isinstance(user, ReciprocalOp):
        return only_neighbour(user.result), user.result, False
    return user, value, divides


@dataclass
class _Norm:
    """A norm of ``source`` over ``dims`` whose last op so far is ``last``; ``rounding`` as the norm ops define it."""

    source: SSAValue
    dims: tuple[int, ...]
    centred: bool
    eps: float
    last: Operation
    rounding: Rounding
    weight: SSAValue | None = None
    offset: Number | None = None
    bias: SSAValue | None = None
    groups: int | None = None
    wide: bool = True
    """Whether values are still in the dtype of the statistics."""
    matched: list[Operation] = field(default_factory=list)
    form: str = "inside"
    factor: float = 1.0
    """What the norm is to be multiplied by."""

    @property
    def value(self) -> SSAValue:
        """The last value."""
        return self.last.results[0]

    @property
    def narrow(self) -> str | None:
        """The half-precision dtype of what is normalised, if it was cast to float32 for it."""
        name = types.dtype(exact(self.source))
        return name if name in NARROW and types.dtype(self.source) == "f32" else None

    def start(self, scale: SSAValue, divides: bool) -> bool:
        """Whether ``last`` multiplies the source by ``scale``, or divides it; a weight may be a factor of either."""
        op = self.last
        if divides:
            return isinstance(op, DivOp) and op.rhs is scale and self._is_numerator(op.lhs) and self._keeps_dtype(op)
        if not isinstance(op, MulOp) or op.rhs is None:
            return False
        other = op.rhs if op.lhs is scale else op.lhs
        if self._is_numerator(other):
            return self._keeps_dtype(op)
        if self.rounding != "result" or self.narrow is not None:
            return False
        return self._takes_weight_first(op, other)

    def _keeps_dtype(self, op: BinaryOp) -> bool:
        """Whether an op's result has the statistics' dtype, or the narrow one where the scale was rounded to it."""
        if types.shape(op.result) != types.shape(self.source):
            return False
        if self.rounding == "scale":
            self.wide = False
            operands = {types.dtype(value) for value in op.operands}
            return not self.centred and self.narrow is not None and operands == {self.narrow}
        return types.dtype(op.result) == types.dtype(self.source)

    def _takes_weight_first(self, op: MulOp, other: SSAValue) -> bool:
        """``(weight · x) · scale`` and ``x · (weight · scale)``."""
        product = made_by(other, MulOp)
        if product is not None and product.rhs is not None:
            for value, weight in ((product.lhs, product.rhs), (product.rhs, product.lhs)):
                if self._is_numerator(value) and self._is_parameter(weight) and self._keeps_dtype(op):
                    self.weight = weight
                    return True
        if not self._is_parameter(other):
            return False
        user = only_neighbour(op.result)
        if not isinstance(user, MulOp) or user.rhs is None:
            return False
        value = user.rhs if user.lhs is op.result else user.lhs
        if not self._is_numerator(value) or not self._keeps_dtype(user):
            return False
        self.weight, self.last = other, user
        self.matched.append(op)
        return True

    def _is_numerator(self, value: SSAValue) -> bool:
        if not self.centred:
            return same(value, self.source)
        found = centred_of(value)
        if found is None or found[1] != self.dims:
            return False
        if exact(found[0]) is exact(self.source):
            return True
        # (x - mean(x)) by the root of its own variance, which is that of x
        if not same(value, self.source) or found[0].type != self.source.type:
            return False
        self.source = found[0]
        return True

    def _is_parameter(self, value: SSAValue) -> bool:
        """Whether a value has one number for each normalised place (each channel, in a group norm)."""
        shape, whole = types.shape(value), types.shape(self.source)
        if len(shape) > len(whole):
            return False
        shape = (*[1] * (len(whole) - len(shape)), *shape)
        return all(extent == (whole[d] if d in self.dims else 1) for d, extent in enumerate(shape))

    def extend(self) -> None:
        """Follow the chain of values that have one user each: reshapes back, casts, weight and bias."""
        self._reshape_back()
        if self.wide and self.narrow is not None and self._cast_back():
            self.wide = False
        if self.groups is not None and not self.wide:
            return  # group norm rounds once
        if self.weight is None:
            self._take_weight()
        self._take_bias()
        if not self.wide and self.rounding == "result" and (self.weight is not None or self.bias is not None):
            self.rounding = "normalized"
        if self.wide and self.narrow is not None and self._cast_back():
            self.wide = False

    def take_numbers(self) -> None:
        """Numbers that multiply the last value."""
        while self.wide:
            user = only_neighbour(self.value)
            found = with_number(user) if isinstance(user, (MulOp, DivOp)) else None
            if user is None or found is None or not found[1] or user.results[0].type != self.value.type:
                return
            self.factor *= 1 / float(found[1]) if isinstance(user, DivOp) else float(found[1])
            self._advance(user)

    def _advance(self, op: Operation) -> None:
        self.matched.append(self.last)
        self.last = op

    def _cast_back(self) -> bool:
        user = only_neighbour(self.value)
        if not isinstance(user, CastOp) or types.dtype(user.result) != self.narrow:
            return False
        self._advance(user)
        return True

    def _reshape_back(self) -> None:
        """Where only rows were regrouped for the norm, it needs no reshape; where channels were, it is of groups."""
        before, after = made_by(self.source, ReshapeOp), only_neighbour(self.value)
        if before is None or not isinstance(after, ReshapeOp) or self.weight is not None or not self.wide:
            return
        outer, inner = types.shape(before.input), types.shape(self.source)
        if types.shape(after.result) != outer:
            return
        count = len(self.dims)
        if self.dims != tuple(range(len(inner) - count, len(inner))):
            return
        if len(outer) >= count and outer[-count:] == inner[-count:]:
            self.dims = tuple(range(len(outer) - count, len(outer)))
        elif self.centred and count == len(inner) - 2 and _divides_channels(outer, inner):
            self.dims, self.groups = (1,), int(inner[1])  # pyright: ignore[reportArgumentType]
        else:
            return
        self.source = before.input
        self._advance(after)

    def _other(self, kind: type[BinaryOp]) -> tuple[BinaryOp, SSAValue] | None:
        """The one op that uses the last value, if it is of a kind and takes a parameter beside it."""
        user = only_neighbour(self.value)
        if not isinstance(user, kind) or user.rhs is None:
            return None
        other = user.rhs if user.lhs is self.value else user.lhs
        dtypes = {types.dtype(value) for value in (self.value, user.result, *([] if self.wide else [other]))}
        fits = len(dtypes) == 1 and types.shape(user.result) == types.shape(self.value) and self._is_parameter(other)
        return (user, other) if fits else None

    def _take_weight(self) -> None:
        found = self._other(MulOp)
        if found is not None:
            self.weight = found[1]
            self._advance(found[0])

    def _take_bias(self) -> None:
        found = self._other(AddOp) if self.centred else None
        if found is not None:
            self.bias = found[1]
            self._advance(found[0])

    def rewrite(self) -> None:
        """Put the norm op in the place of the last op."""
        if not self.wide:
            self.source = exact(self.source)
        new: list[Operation] = []
        self._split_weight()
        weight, bias = (None if value is None else self._parameter(value, new) for value in (self.weight, self.bias))
        if weight is not None and bias is not None:
            weight, bias = _in_one_dtype(weight, bias, new)
        source, back = self._moved_last(new)
        kind, properties = self._op()
        operands = [source, weight, *([bias] if self.centred else [])]
        before = types.tensor_type(self.value)
        kinds = [before] if back is None else None
        new.append(kind.make(operands, properties, kinds))
        if self.factor != 1.0:
            new.append(MulOp.make([new[-1].results[0]], {"scalar": ScalarAttr.of(self.factor)}, kinds))
        if back is not None:
            new.append(_transposed(new[-1].results[0], back))
            if is_seen(self.value):
                new.append(CopyOp.make([new[-1].results[0]], None, [before]))
        substitute(self.last, new, self.matched, f"made one {kind.name} of a norm that is written as arithmetic")

        give_layout(new[-1].results[0], before)

    def _op(self) -> tuple[type[ForgeOp], dict[str, Attribute]]:
        eps = {"eps": ScalarAttr.of(self.eps)}
        if self.groups is not None:
            return GroupNormOp, {**eps, "groups": IntAttr(self.groups)}
        properties: dict[str, Attribute] = {**eps, "axes": IntAttr(len(self.dims))}
        if self.rounding != "result":
            properties["rounding"] = StringAttr(self.rounding)
        if self.offset is not None:
            properties["weight_offset"] = ScalarAttr.of(self.offset)
        if self.form != "inside":
            properties["eps_form"] = StringAttr(self.form)
        return LayerNormOp if self.centred else RmsNormOp, properties

    def _split_weight(self) -> None:
        """``1 + w``, computed in the dtype of the statistics, is the weight w with an offset."""
        add = made_by(self.weight, AddOp)
        found = None if add is None or self.centred or self.rounding != "result" else with_number(add)
        if add is None or found is None or number(add.result) is not None:
            return
        precise = types.dtype(add.result) == ("f64" if types.dtype(self.source) == "f64" else "f32")
        if precise and types.dtype(found[0]) == types.dtype(add.result) and self._is_parameter(found[0]):
            self.weight, self.offset = found

    def _parameter(self, value: SSAValue, new: list[Operation]) -> SSAValue:
        """A parameter in a dtype and in the shape that the op takes."""
        name = types.dtype(self.source)
        if types.dtype(exact(value)) in (name, "f32"):
            value = exact(value)
        if types.dtype(value) not in (name, "f32"):
            wide = types.tensor("f64" if name == "f64" else "f32", types.shape(value))
            new.append(CastOp.make([value], None, [wide]))
            value = new[-1].results[0]
        shape = tuple(types.shape(self.source)[d] for d in self.dims)
        if types.shape(value) != shape:
            reshape = made_by(value, ReshapeOp)
            if reshape is not None and types.shape(reshape.input) == shape:
                return reshape.input
            new.append(ReshapeOp.make([value], None, [types.tensor(types.dtype(value), shape)]))
            value = new[-1].results[0]
        return value

    def _moved_last(self, new: list[Operation]) -> tuple[SSAValue, list[int] | None]:
        """The source with the normalised dimensions last, and the permutation back."""
        shape = types.shape(self.source)
        order = [*(d for d in range(len(shape)) if d not in self.dims), *self.dims]
        if self.groups is not None or order == sorted(order):
            return self.source, None
        new.append(_transposed(self.source, order))
        return new[-1].results[0], [order.index(d) for d in range(len(order))]


def _transposed(value: SSAValue, order: list[int]) -> TransposeOp:
    """A transpose that moves nothing."""
    shape, strides = types.shape(value), types.strides(value)
    kind = types.tensor(types.dtype(value), [shape[d] for d in order], [strides[d] for d in order])
    return TransposeOp.make([value], {"permutation": IntsAttr(order)}, [kind])


def _divides_channels(outer: tuple[Extent, ...], inner: tuple[Extent, ...]) -> bool:
    """True if ``[B, C, *X]`` was reshaped to ``[B, G, …]`` such that each group has whole channels."""
    if len(outer) < 2 or len(inner) < 3 or outer[0] != inner[0]:
        return False
    channels, groups = outer[1], inner[1]
    return isinstance(channels, int) and isinstance(groups, int) and groups > 0 and channels % groups == 0


def _in_one_dtype(weight: SSAValue, bias: SSAValue, new: list[Operation]) -> list[SSAValue]:
    """Both in the wider dtype of the two, as kernels want them; statistics are in float32 at least."""
    wide = types.promote(types.dtype(weight), types.dtype(bias))
    found: list[SSAValue] = []
    for value in (weight, bias):
        if types.dtype(value) != wide:
            kind = types.tensor(wide, types.shape(value))
            new.append(CastOp.make([value], {}, [kind]))
            value = new[-1].results[0]
        found.append(value)
    return found
