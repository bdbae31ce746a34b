"""A dequantisation as operands of ``forge.linear``."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.shape import ReshapeOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.axes import Atom, Dims, extent_of, leaves
from forgec.passes.dequantization import INTEGERS, Chain, Parameter, Refused, row_of
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class Operands:
    """What a linear takes for its weight, and the ops that make it."""

    weight: SSAValue
    scales: SSAValue | None
    zeros: SSAValue | None
    properties: dict[str, Attribute]
    new: list[ForgeOp]


def operands_of(chain: Chain, rows: Atom, columns: Atom) -> Operands:
    """A chain as operands of ``forge.linear`` with a weight [rows, columns]; raises Refused where it has no such."""
    new: list[ForgeOp] = []
    row_atoms, column_atoms = leaves([rows]), leaves([columns])
    compute = chain.compute or chain.dtype
    properties: dict[str, Attribute] = {"compute": StringAttr(compute)}
    inside = column_atoms
    if chain.packing is not None:
        if chain.half not in column_atoms:
            raise Refused("the two numbers of a byte belong to two rows, or one of them is not used")
        place = column_atoms.index(chain.half)
        inside = column_atoms[:place] + column_atoms[place + 1 :]
        properties["packing"] = StringAttr(chain.packing)
        if chain.high:
            properties["high_first"] = UnitAttr()
        run = extent_of(column_atoms[place + 1 :])
        if run != 1 and isinstance(run, int):
            properties["run"] = IntAttr(run)
    weight = _matrix(chain.numbers, chain.dims, row_atoms, inside, new)
    scales = None if chain.scales is None else _placed(chain.scales, row_atoms, column_atoms, compute, new)
    zeros = (
        None
        if chain.zeros is None or chain.zeros.is_zero
        else _placed(chain.zeros, row_atoms, column_atoms, compute, new)
    )
    if scales is not None:
        scales = _multiplied_alike(chain, scales, new)
    if zeros is not None and types.result_dtype([types.tensor(compute, [1]), row_of(zeros)]) != compute:
        raise Refused(f"zero points of {types.dtype(zeros)} are subtracted in {compute}")
    return Operands(weight, scales, zeros, properties, new)


def _multiplied_alike(chain: Chain, scales: SSAValue, new: list[ForgeOp]) -> SSAValue:
    """The scales in a dtype such that torch multiplies in the dtype in which the model did."""
    compute, product = chain.compute or chain.dtype, chain.product
    assert product is not None, "there are scales"
    if types.result_dtype([types.tensor(compute, [1]), row_of(scales)]) == product:
        return scales
    if types.promote(types.dtype(scales), product) != product or not types.rank(scales):
        raise Refused(f"scales of {types.dtype(scales)} are multiplied in {product}")
    if types.promote(compute, product) != product:
        raise Refused(f"a difference in {compute} is multiplied in {product}")
    new.append(CastOp.make([scales], None, [types.tensor(product, types.shape(scales))]))
    return new[-1].results[0]


def _placed(parameter: Parameter, rows: list[Atom], columns: list[Atom], compute: str, new: list[ForgeOp]) -> SSAValue:
    """A parameter with one number for each block of the matrix."""
    if not isinstance(parameter.value, SSAValue):
        integer = compute in INTEGERS
        name = "i64" if isinstance(parameter.value, int) else "f32" if integer else "f64"
        new.append(FullOp.make([], {"value": ScalarAttr.of(parameter.value)}, [types.tensor(name, ())]))
        return new[-1].results[0]
    if parameter.plain:
        return _reshaped(parameter.value, (), new)
    kept = leaves(atom for dim in parameter.dims for atom in dim)
    outer = [atom for atom in rows if atom in kept], [atom for atom in columns if atom in kept]
    for part, whole in zip(outer, (rows, columns), strict=True):
        if part != whole[: len(part)]:
            raise Refused("scales or zero points vary within a block")
    return _matrix(parameter.value, parameter.dims, *outer, new)


def _matrix(value: SSAValue, dims: Dims, rows: list[Atom], columns: list[Atom], new: list[ForgeOp]) -> SSAValue:
    """A value as [rows, columns], by a reshape and perhaps a transpose."""
    found = leaves(atom for dim in dims for atom in dim)
    if found == rows + columns:
        return _reshaped(value, (extent_of(rows), extent_of(columns)), new)
    if found != columns + rows:
        raise Refused("its elements lie in another order than those of a matrix")
    turned = _reshaped(value, (extent_of(columns), extent_of(rows)), new)
    shape, strides = types.shape(turned)[::-1], types.strides(turned)[::-1]
    kind = types.tensor(types.dtype(turned), shape, strides)
    new.append(TransposeOp.make([turned], {"permutation": IntsAttr([1, 0])}, [kind]))
    return new[-1].results[0]


def _reshaped(value: SSAValue, shape: tuple[Extent, ...], new: list[ForgeOp]) -> SSAValue:
    if types.shape(value) == shape:
        return value
    new.append(ReshapeOp.make([value], None, [types.tensor(types.dtype(value), shape)]))
    return new[-1].results[0]
