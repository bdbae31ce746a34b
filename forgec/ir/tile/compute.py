"""What is computed on tiles beside the elementwise ops of ``arith`` and ``math``: products, reductions, scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import AnyFloat, IndexType, IntAttr, StringAttr, TensorType, UnitAttr, bf16, f32
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import ExtentAttr, ExtentsAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.format import Bare
from forgec.ir.tile.types import INDEX, element, extents, tile
from forgec.runtime.symbolic import Extent, free_symbols


class TileOp(IRDLOperation):
    """Base of the pure ops on tiles."""

    custom_directives = (Bare,)

    traits = traits_def(Pure())

    def set_up(
        self, operands: Sequence[SSAValue], kind: Attribute, properties: Mapping[str, Attribute] | None = None
    ) -> None:
        """Sets up an op of one result as ``Operation`` does, which IRDL's initialiser takes four times as long for: it
        sorts operands into segments, and these ops have none. Lowering makes hundreds of them for a kernel.
        """
        Operation.__init__(self, operands=operands, result_types=(kind,), properties=properties or {})

    def expect(self, kind: Attribute) -> None:
        """Raises VerifyException unless the result has this type."""
        if self.results[0].type != kind:
            raise VerifyException(f"{self.name} yields {kind}, but the result has type {self.results[0].type}")


@irdl_op_definition
class IndexOp(TileOp):
    """Arithmetic of places: an expression over the kernel's symbols, its tile parameters, and ``p0``, ``p1``, …, which
    are the operands: ``%o = tile.index p0 * 4096 + p1 * n0 (%batch, %row) : (index, index) -> index``.

    Operands are scalars, or tiles of the result's extents.
    """

    name = "tile.index"

    expression = prop_def(ExtentAttr)
    inputs = var_operand_def(AnyAttr())
    result = result_def(AnyAttr())

    assembly_format = "custom<Bare>($expression) `(` $inputs `)` attr-dict `:` functional-type($inputs, $result)"

    def __init__(self, expression: Extent, inputs: Sequence[SSAValue] = (), shape: Sequence[Extent] = ()) -> None:
        self.set_up(inputs, tile("index", shape), {"expression": ExtentAttr(expression)})

    def verify_(self) -> None:
        if element(self.result) != INDEX:
            raise VerifyException("tile.index yields elements of type index")
        for operand in self.inputs:
            if element(operand) != INDEX or extents(operand) not in ((), extents(self.result)):
                raise VerifyException("tile.index takes scalars, and tiles of the result's extents, of type index")
        used = {name for name in free_symbols(self.expression.data) if name[0] == "p" and name[1:].isdigit()}
        if not used <= {f"p{number}" for number in range(len(self.inputs))}:
            raise VerifyException(f"{self.expression.data} names an operand that is not there")


@irdl_op_definition
class RangeOp(TileOp):
    """``result[i] = i``: the places 0, 1, 2, … within a tile."""

    name = "tile.range"

    result = result_def(AnyAttr())

    assembly_format = "attr-dict `:` type($result)"

    def __init__(self, extent: Extent) -> None:
        self.set_up((), tile("index", [extent]))

    def verify_(self) -> None:
        if element(self.result) != INDEX or len(extents(self.result)) != 1:
            raise VerifyException("tile.range yields a tile of rank 1 of type index")


@irdl_op_definition
class BroadcastOp(TileOp):
    """Repeats a tile, or a scalar, along new axes: operand axis ``i`` becomes axis ``along[i]`` of the result
    (increasing; ``stablehlo.broadcast_in_dim``). An operand's extent of 1 is repeated as well.
    """

    name = "tile.broadcast"

    input = operand_def(AnyAttr())
    along = prop_def(IntsAttr)
    result = result_def(AnyAttr())

    assembly_format = "$input `along` custom<Bare>($along) attr-dict `:` type($input) `->` type($result)"

    def __init__(self, value: SSAValue, along: Sequence[int], shape: Sequence[Extent]) -> None:
        self.set_up([value], tile(element(value), shape), {"along": IntsAttr(along)})

    def verify_(self) -> None:
        shape, along = extents(self.result), self.along.data
        if len(along) != len(extents(self.input)) or list(along) != sorted(set(along)):
            raise VerifyException("along names an axis of the result for each axis of the operand, in order")
        if element(self.input) != element(self.result):
            raise VerifyException("a broadcast keeps the element type")
        for axis, extent in zip(along, extents(self.input), strict=True):
            if not 0 <= axis < len(shape) or extent not in (1, shape[axis]):
                raise VerifyException(f"the operand's extent {extent} does not fit axis {axis} of the result")


@irdl_op_definition
class TransposeOp(TileOp):
    """Axis ``i`` of the result is axis ``permutation[i]`` of the operand."""

    name = "tile.transpose"

    input = operand_def(AnyAttr())
    permutation = prop_def(IntsAttr)
    result = result_def(AnyAttr())

    assembly_format = "$input custom<Bare>($permutation) attr-dict `:` type($input) `->` type($result)"

    def __init__(self, value: SSAValue, permutation: Sequence[int]) -> None:
        shape = extents(value)
        super().__init__(
            operands=[value],
            result_types=[tile(element(value), [shape[axis] for axis in permutation])],
            properties={"permutation": IntsAttr(permutation)},
        )

    def verify_(self) -> None:
        shape = extents(self.input)
        if sorted(self.permutation.data) != list(range(len(shape))):
            raise VerifyException("the permutation names each axis once")
        self.expect(tile(element(self.input), [shape[axis] for axis in self.permutation.data]))


class Product(IRDLOperation):
    """What ``tile.dot`` and the product of a scheduled kernel have in common: operands, properties, their text."""

    T: ClassVar = VarConstraint("T", AnyAttr())

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    accumulator = operand_def(T)
    rows = var_operand_def(IndexType)
    band = opt_prop_def(StringAttr)
    transposed = opt_prop_def(UnitAttr)
    precision = prop_def(StringAttr, default_value=StringAttr("ieee"))

    @staticmethod
    def format(more: str = "") -> str:
        """The assembly format, with more of it before the attributes."""
        return (
            "$lhs `,` $rhs `into` $accumulator (`rows` $rows^)? (`band` custom<Bare>($band)^)? "
            f"(`transposed` $transposed^)? (`precision` custom<Bare>($precision)^)? {more} attr-dict "
            "`:` type($lhs) `,` type($rhs) `->` type($accumulator)"
        )

    def verify_(self) -> None:
        left, right, result = extents(self.lhs), extents(self.rhs), extents(self.accumulator)
        if self.transposed is not None:
            right = right[::-1]
        if len(left) != 2 or len(right) != 2 or result != (left[0], right[1]) or left[1] != right[0]:
            raise VerifyException(f"{self.name} multiplies [m, k] by [k, n] into [m, n]")
        if element(self.lhs) != element(self.rhs):
            raise VerifyException(f"{self.name} multiplies tiles of one element type")
        if len(self.rows) not in (0, 2):
            raise VerifyException(f"{self.name} takes the first of its rows and the one after the last, or none")
        if self.band is not None and (self.band.data not in ("result", "sum") or not self.rows):
            raise VerifyException(f"{self.name} takes a band of its result or of its sum, between two places")
        if self.precision.data not in ("ieee", "tf32", "bf16"):
            raise VerifyException(f"there is no precision {self.precision.data!r}")
        if self.precision.data == "bf16" and (element(self.lhs), element(self.accumulator)) != (bf16, f32):
            raise VerifyException("products of precision bf16 are of bf16, summed in f32")


@irdl_op_definition
class DotOp(TileOp, Product):
    """``result[m, n] = accumulator[m, n] + Σ_k lhs[m, k] · rhs[k, n]``; with ``transposed`` rhs is ``[n, k]``.

    Operands are multiplied exactly as their element type says and summed in the accumulator's element type (f32 for
    floats of at most 32 bits, f64, i32 or i64 for integers); ``precision`` ``"tf32"`` allows operands of f32 to be
    rounded to 10 bits, ``"ieee"`` (the default) does not. ``"bf16"``, of operands of bf16 summed in f32, allows
    subnormal operands, products and sums to count as 0, and each product and each sum to be rounded by itself, to the
    nearest or to odd: of n products the result is off by at most ``n · (2⁻²² Σ |lhs · rhs| + 2⁻¹²⁵)`` and by ``2⁻¹²⁶``
    times the sum of the magnitudes of factors that meet a subnormal. The order of the sum is free. With ``rows %first,
    %end`` only the rows from the one place up to the other are added to, as far as the tile has them.

    With ``rows %low, %high band "result"`` elements of the result are only defined where ``low <= n - m < high``. With
    ``band "sum"`` only what has ``low <= k - m < high`` is summed: ``lhs`` is 0 elsewhere, and what no row sums of
    ``rhs`` is not read. So a backend may leave out of products what causality and windows do.
    """

    name = "tile.dot"

    result = result_def(Product.T)

    assembly_format = Product.format()

    def __init__(
        self,
        lhs: SSAValue,
        rhs: SSAValue,
        accumulator: SSAValue,
        *,
        transposed: bool = False,
        rows: Sequence[SSAValue] = (),
        precision: str = "ieee",
        band: str | None = None,
    ) -> None:
        properties: dict[str, Attribute] = {"transposed": UnitAttr()} if transposed else {}
        if precision != "ieee":
            properties["precision"] = StringAttr(precision)
        if band is not None:
            properties["band"] = StringAttr(band)
        self.set_up([lhs, rhs, accumulator, *rows], accumulator.type, properties)

    def verify_(self) -> None:
        Product.verify_(self)
        self.expect(self.accumulator.type)


REDUCTIONS = ("add", "mul", "max", "maxnum", "min", "and", "or", "argmax", "argmin")


@irdl_op_definition
class ReduceOp(TileOp):
    """Combines the elements along ``axis``, which the result lacks (a scalar where it was the only one).

    ``kind``: ``add`` and ``mul`` in any order; ``max`` and ``min`` give NaN if there is one, ``maxnum`` (on floats) the
    greatest number all the same, -inf if there is none; ``and`` and ``or`` on booleans or integers; ``argmax`` and
    ``argmin`` give the place (``index``) of the first largest or smallest element, where NaN is larger and smaller than
    any number.
    """

    name = "tile.reduce"

    input = operand_def(TensorType)
    axis = prop_def(IntAttr)
    kind = prop_def(StringAttr)
    result = result_def(AnyAttr())

    assembly_format = (
        "custom<Bare>($kind) $input `axis` custom<Bare>($axis) attr-dict `:` type($input) `->` type($result)"
    )

    def __init__(self, kind: str, value: SSAValue, axis: int) -> None:
        self.set_up([value], _reduced(kind, value, axis), {"axis": IntAttr(axis), "kind": StringAttr(kind)})

    def verify_(self) -> None:
        if self.kind.data not in REDUCTIONS:
            raise VerifyException(f"there is no reduction {self.kind.data!r}")
        if self.kind.data == "maxnum" and not isinstance(element(self.input), AnyFloat):
            raise VerifyException("the reduction maxnum is of floats")
        if not 0 <= self.axis.data < len(extents(self.input)):
            raise VerifyException(f"the operand has no axis {self.axis.data}")
        self.expect(_reduced(self.kind.data, self.input, self.axis.data))


def _reduced(kind: str, value: SSAValue, axis: int) -> Attribute:
    shape = extents(value)
    return tile("index" if kind.startswith("arg") else element(value), (*shape[:axis], *shape[axis + 1 :]))


@irdl_op_definition
class ScanOp(TileOp):
    """``result[i] = x[0] ∘ x[1] ∘ … ∘ x[i]`` along ``axis``; ``kind`` is ``add``, ``mul``, ``max`` or ``min`` as in
    ``tile.reduce``.
    """

    name = "tile.scan"

    T: ClassVar = VarConstraint("T", AnyAttr())

    input = operand_def(T)
    axis = prop_def(IntAttr)
    kind = prop_def(StringAttr)
    result = result_def(T)

    assembly_format = "custom<Bare>($kind) $input `axis` custom<Bare>($axis) attr-dict `:` type($input)"

    def __init__(self, kind: str, value: SSAValue, axis: int) -> None:
        super().__init__(
            operands=[value], result_types=[value.type], properties={"axis": IntAttr(axis), "kind": StringAttr(kind)}
        )

    def verify_(self) -> None:
        if self.kind.data not in ("add", "mul", "max", "min"):
            raise VerifyException(f"there is no scan {self.kind.data!r}")
        if not 0 <= self.axis.data < len(extents(self.input)):
            raise VerifyException(f"the operand has no axis {self.axis.data}")
        self.expect(self.input.type)


@irdl_op_definition
class PadOp(TileOp):
    """Puts ``other`` where an element's place (``offsets`` + its place in the tile) is not below ``bounds``:
    ``%y = tile.pad %x[%m, 0] within [n0, 576] other -inf``. So reductions do not see what is outside.

    ``bounds`` has one extent for each axis, in the kernel's symbols. A tile that is certain to be inside is unchanged.
    """

    name = "tile.pad"

    T: ClassVar = VarConstraint("T", AnyAttr())

    input = operand_def(T)
    offsets = var_operand_def(INDEX)
    bounds = prop_def(ExtentsAttr)
    other = prop_def(ScalarAttr)
    result = result_def(T)

    assembly_format = (
        "$input `[` $offsets `]` `within` custom<Bare>($bounds) `other` custom<Bare>($other) attr-dict `:` type($input)"
    )

    def __init__(
        self, value: SSAValue, offsets: Sequence[SSAValue], bounds: Sequence[Extent], other: bool | int | float
    ) -> None:
        properties = {"bounds": ExtentsAttr(bounds), "other": ScalarAttr.of(other)}
        self.set_up([value, *offsets], value.type, properties)

    def verify_(self) -> None:
        rank = len(extents(self.input))
        if len(self.offsets) != rank or len(self.bounds.data) != rank:
            raise VerifyException("tile.pad takes an offset and a bound for each axis")
        self.expect(self.input.type)
