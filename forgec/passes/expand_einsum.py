"""Contractions in the notation of einsum, as products of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.passes.attention_frames import Builder
from forgec.passes.patterns import substitute
from forgec.passes.rewriting import blocks
from forgec.runtime.plan import Reg


@dataclass(frozen=True)
class ExpandEinsum(ModulePass):
    """Write ``aten::einsum`` of one operand as a transpose, and of two as a product between transposes.

    Before::

        %0 = forge.aten "aten::einsum"("bind,bjnd->bnij", [%q, %k]) : (tensor<2x9x4x8xf32>, tensor<2x9x4x8xf32>) -> …

    After::

        %1 = forge.transpose %q [0, 2, 1, 3] : (tensor<2x9x4x8xf32>) -> tensor<2x4x9x8xf32, …>
        %2 = forge.transpose %k [0, 2, 3, 1] : (tensor<2x9x4x8xf32>) -> tensor<2x4x8x9xf32, …>
        %0 = forge.matmul %1, %2 : (…) -> tensor<2x4x9x9xf32>

    Several indices that are summed, or of one operand alone, become one dimension of the product. An ellipsis stands
    for as many indices. What repeats or sums an index within one operand, or broadcasts, stays.

    Order: before ``fuse-attention``, which looks for products.
    """

    name = "expand-einsum"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, AtenOp) and current.callee.data == "aten::einsum":
                    _expand(current)


def _expand(op: AtenOp) -> None:
    equation = op.args.arguments[0][0]
    places = op.args.arguments[0][1]
    if not isinstance(places, (list, tuple)):
        return
    values = [op.inputs[place.id] for place in places if isinstance(place, Reg)]  # one value may be several operands
    found = _terms(str(equation), [types.rank(value) for value in values])
    if found is None:
        return
    inputs, output = found
    extents = {}
    for labels, value in zip(inputs, values, strict=True):
        for label, extent in zip(labels, types.shape(value), strict=True):
            if extents.setdefault(label, extent) != extent:
                return
    build = Builder()
    if len(inputs) == 1 and sorted(inputs[0]) == sorted(output):
        result = build.transpose(values[0], [inputs[0].index(label) for label in output])
    elif len(inputs) == 2 and len({types.dtype(value) for value in values}) == 1:
        result = _product(build, values, inputs, output, extents)
    else:
        return
    if result is not None and build.ops:
        build.in_place_of(result, op.results[0])
        substitute(op, build.ops, what="einsum is a product of matrices")


def _terms(equation: str, ranks: list[int]) -> tuple[list[str], str] | None:
    """The labels of each operand's dimensions and of the result's, with labels in the place of an ellipsis; None if
    they are not all different within an operand.
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ranks):
        return None
    if not arrow:  # implicit: what an ellipsis stands for, then what appears once, by the alphabet
        labels = left.replace("...", "").replace(",", "")
        output = "..." * ("..." in left) + "".join(sorted(label for label in labels if labels.count(label) == 1))
    covered = {rank - len(term) + 3 for term, rank in zip(inputs, ranks, strict=True) if "..." in term}
    if len(covered) > 1 or min(covered, default=0) < 0:
        return None
    free = (chr(number) for number in range(ord("A"), ord("Z") + 1) if chr(number) not in equation)
    stand_ins = "".join(label for label, _ in zip(free, range(max(covered, default=0)), strict=False))
    terms = [term.replace("...", stand_ins) for term in (*inputs, output)]
    fits = [len(term) for term in terms[:-1]] == ranks
    plain = all(term.isalpha() and len(set(term)) == len(term) for term in terms)
    return (terms[:-1], terms[-1]) if fits and plain else None


def _product(build: Builder, values: list[SSAValue], inputs: list[str], output: str, extents: dict) -> SSAValue | None:
    left, right = inputs
    shared = [label for label in left if label in right]
    batch = [label for label in output if label in shared]
    summed = [label for label in shared if label not in output]
    rows = [label for label in output if label in left and label not in right]
    columns = [label for label in output if label in right and label not in left]
    if len(rows) + len(shared) != len(left) or len(columns) + len(shared) != len(right) or not summed:
        return None

    def matrix(value: SSAValue, labels: str, *groups: list[str]) -> SSAValue:
        order = [labels.index(label) for group in (batch, *groups) for label in group]
        value = build.transpose(value, order)
        merged = [prod((extents[label] for label in group), start=1) for group in groups]
        return build.reshape(value, [*(extents[label] for label in batch), *merged])

    lhs, rhs = matrix(values[0], left, rows, summed), matrix(values[1], right, summed, columns)
    result = build.insert(MatmulOp.make([lhs, rhs]))
    order = [*batch, *rows, *columns]
    result = build.reshape(result, [extents[label] for label in order])
    return build.transpose(result, [order.index(label) for label in output])
