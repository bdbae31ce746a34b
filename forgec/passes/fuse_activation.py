"""Activation functions that the model spells out, as one op each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.activation import MishOp, SoftplusOp, SwishOp
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.binary import AddOp, BinaryOp, DivOp, MulOp, PowOp, RsubOp, SubOp
from forgec.ir.ops.unary import ErfcOp, ErfOp, ExpOp, GeluOp, NegOp, ReciprocalOp, SigmoidOp, SiluOp, TanhOp
from forgec.passes.patterns import made_by, number, only_neighbour, substitute, with_number
from forgec.passes.rewriting import blocks

ARITHMETIC = (AddOp, SubOp, RsubOp, MulOp, DivOp, PowOp, NegOp)
LONGEST = 12
"""Ops of arithmetic in the longest spelling, and some."""

Polynomial = Mapping[tuple[int, int], float]
"""In x and y: the coefficient of ``x ** i * y ** j`` at (i, j)."""

Activation = Callable[[SSAValue, Attribute], ForgeOp]
"""Makes an op of its operand and the type of its result."""

X: Polynomial = {(1, 0): 1.0}
Y: Polynomial = {(0, 1): 1.0}
HALF_X_TIMES_ONE_PLUS_Y: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
HALF_X_TIMES_Y: Polynomial = {(1, 1): 0.5}
X_TIMES_Y: Polynomial = {(1, 1): 1.0}
TANH_SCALE = math.sqrt(2 / math.pi)
GELU_TANH: Polynomial = {(1, 0): TANH_SCALE, (3, 0): TANH_SCALE * 0.044715}
GELU_ERF: Polynomial = {(1, 0): math.sqrt(0.5)}
GELU_ERFC: Polynomial = {(1, 0): -math.sqrt(0.5)}
INNER = (TanhOp, ErfOp, ErfcOp, SigmoidOp)
Inner = TanhOp | ErfOp | ErfcOp | SigmoidOp


@dataclass(frozen=True)
class FuseActivation(ModulePass):
    """Make one op of each activation function that is written as arithmetic around a ``tanh``, ``erf``, ``erfc``,
    ``exp`` or ``sigmoid``.

    Before::

        %0 = forge.mul %x, 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>
        %1 = forge.sigmoid %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
        %2 = forge.mul %x, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

    After::

        %2 = forge.swish %x beta 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>

    The arithmetic is compared as polynomials: before the function in x, after it in x and the function's value. So it
    does not matter in which order a model multiplies and adds. Constants have to agree to about the precision of
    float32, in which models write them. Found are GELU with erf and with tanh (``forge.gelu``), ``forge.silu``,
    ``forge.swish``, ``forge.mish``, and the sigmoid as ``1 / (1 + exp(-x))``. In half precision the fused op may round
    once, where its spelling rounds after every step. An infinite x may become NaN, as ATen's GELU has it.

    Order: before ``fuse-glu``, which looks for activations that are one op.
    """

    name = "fuse-activation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for exponential in [child for child in block.ops if isinstance(child, ExpOp)]:
                _logistic(exponential)
            for inner in [child for child in block.ops if isinstance(child, INNER)]:
                for x, after, activation in _meanings(inner):
                    root = _result(inner, x, after)
                    if root is not None:
                        new = activation(x, root.results[0].type)
                        substitute(root, [new], [inner], f"made one {new.name} of what is written as arithmetic")
                        break


def _logistic(op: ExpOp) -> None:
    """``1 / (1 + exp(-x))`` as a sigmoid and ``x / (1 + exp(-x))`` as a SiLU."""
    add, negation = only_neighbour(op.result), made_by(op.input, NegOp)
    one = with_number(add) if isinstance(add, AddOp) else None
    negated = _scaled(op.input) if negation is None else (negation.input, -1.0)
    if add is None or one is None or one[1] != 1 or negated is None or negated[1] != -1:
        return
    x, total = negated[0], add.results[0]
    if _kind(total) != _kind(op.result):
        return
    root = only_neighbour(total)
    if root is None or _kind(root.results[0]) != _kind(x) or types.dtype(x) not in types.FLOATS:
        return
    if isinstance(root, ReciprocalOp) or (isinstance(root, DivOp) and root.rhs is total and number(root.lhs) == 1):
        new: ForgeOp = SigmoidOp.make([x], None, [root.results[0].type])
    elif isinstance(root, DivOp) and root.rhs is total and root.lhs is x:
        new = SiluOp.make([x], None, [root.results[0].type])
    else:
        return
    substitute(root, [new], [op], f"made one {new.name} of what is written as arithmetic")


def _meanings(inner: Inner) -> Iterator[tuple[SSAValue, Polynomial, Activation]]:
    """What a function's value y may be part of: x, what has to be made of both, and the op that is."""
    if types.dtype(inner.input) not in types.FLOATS:
        return
    if isinstance(inner, SigmoidOp):
        scaled = _scaled(inner.input)
        if scaled is not None:
            yield scaled[0], X_TIMES_Y, _swish(scaled[1])
        yield inner.input, X_TIMES_Y, lambda x, kind: SiluOp.make([x], None, [kind])
        return
    softplus = made_by(inner.input, SoftplusOp)
    if isinstance(inner, TanhOp) and softplus is not None:
        if softplus.constants == [1, 20]:
            yield softplus.input, X_TIMES_Y, lambda x, kind: MishOp.make([x], None, [kind])
        return
    wanted = GELU_TANH if isinstance(inner, TanhOp) else GELU_ERF if isinstance(inner, ErfOp) else GELU_ERFC
    form = StringAttr("tanh" if isinstance(inner, TanhOp) else "none")
    for x in _leaves(inner.input):
        if _equal(_polynomial(inner.input, x, None), wanted):
            after = HALF_X_TIMES_Y if isinstance(inner, ErfcOp) else HALF_X_TIMES_ONE_PLUS_Y
            yield x, after, lambda x, kind: GeluOp.make([x], {"approximate": form}, [kind])


def _swish(beta: float) -> Activation:
    return lambda x, kind: SwishOp.make([x], {"beta": ScalarAttr.of(beta)}, [kind])


def _scaled(value: SSAValue) -> tuple[SSAValue, float] | None:
    """x and c of ``c * x``."""
    op = made_by(value, MulOp)
    found = None if op is None else with_number(op)
    if found is None or _kind(found[0]) != _kind(value):
        return None
    return found[0], float(found[1])


def _leaves(value: SSAValue) -> list[SSAValue]:
    """Everything that a piece of arithmetic is made of, itself last."""
    found: dict[SSAValue, None] = {}

    def visit(value: SSAValue) -> None:
        if value in found or len(found) > LONGEST:
            return
        found[value] = None
        op = producer(value)
        if isinstance(op, ARITHMETIC):
            for operand in op.operands:
                visit(operand)

    visit(value)
    return list(found)[::-1]


def _polynomial(value: SSAValue, x: SSAValue, y: SSAValue | None, depth: int = LONGEST) -> Polynomial | None:
    """A value as a polynomial in x and y, if it is one by how it was made, and of the type of x throughout."""
    if value is x:
        return X
    if value is y:
        return Y
    op = producer(value)
    if not isinstance(op, ARITHMETIC) or not depth or _kind(value) != _kind(x):
        return None
    if isinstance(op, NegOp):
        return _times({(0, 0): -1.0}, _polynomial(op.input, x, y, depth - 1))
    found = with_number(op)
    if found is not None:
        return _with_constant(op, _polynomial(found[0], x, y, depth - 1), float(found[1]))
    if op.rhs is None or isinstance(op, (DivOp, PowOp)):
        return None
    left = _polynomial(op.lhs, x, y, depth - 1)
    right = None if left is None else _polynomial(op.rhs, x, y, depth - 1)
    if left is None or right is None:
        return None
    return _combined(op, left, right)


def _kind(value: SSAValue) -> tuple[object, ...]:
    return types.dtype(value), types.shape(value)


def _with_constant(op: BinaryOp, left: Polynomial | None, number: float) -> Polynomial | None:
    if left is None:
        return None
    if isinstance(op, PowOp):
        if number not in (2, 3):
            return None
        square = _times(left, left)
        return square if number == 2 else _times(square, left)
    if isinstance(op, DivOp):
        return _times(left, {(0, 0): 1 / number}) if number else None
    return _combined(op, left, {(0, 0): number})


def _combined(op: BinaryOp, left: Polynomial, right: Polynomial) -> Polynomial | None:
    if isinstance(op, MulOp):
        return _times(left, right)
    negated = {term: -factor for term, factor in (left if isinstance(op, RsubOp) else right).items()}
    pair = (left, right) if isinstance(op, AddOp) else (negated, right) if isinstance(op, RsubOp) else (left, negated)
    total: dict[tuple[int, int], float] = {}
    for polynomial in pair:
        for term, factor in polynomial.items():
            total[term] = total.get(term, 0.0) + factor
    return total


def _times(left: Polynomial | None, right: Polynomial | None) -> Polynomial | None:
    if left is None or right is None or len(left) * len(right) > LONGEST:
        return None
    product: dict[tuple[int, int], float] = {}
    for (i, j), factor in left.items():
        for (k, m), other in right.items():
            product[i + k, j + m] = product.get((i + k, j + m), 0.0) + factor * other
    return product


def _equal(found: Polynomial | None, wanted: Polynomial) -> bool:
    """Whether two polynomials have the same coefficients, as far as float32 tells them apart."""
    if found is None:
        return False
    terms = found.keys() | wanted.keys()
    return all(math.isclose(found.get(t, 0.0), wanted.get(t, 0.0), rel_tol=1e-7) for t in terms)


def _result(inner: Inner, x: SSAValue, wanted: Polynomial) -> Operation | None:
    """The op at the end of a chain of arithmetic on the function's value that makes the wanted polynomial of it."""
    value = inner.result
    for _ in range(LONGEST):
        op = only_neighbour(value)
        if not isinstance(op, ARITHMETIC):
            return None
        value = op.results[0]
        found = _polynomial(value, x, inner.result)
        if found is None:
            return None
        if _equal(found, wanted):
            return op
    return None
