"""What every forge op has: result inference, cost, and the meaning that the reference interpreter executes.

An op of the forge dialect is a pure function on tensor values. Its class says everything about it in one place:
operands and attributes (IRDL), ``infer`` (result dtype and shape), ``flops`` and ``bytes_moved`` (cost), ``reference``
(meaning, in torch operations on CPU tensors). Adding an op is adding one class to its family's file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xdsl.dialects.builtin import AnyTensorType, DenseArrayBase, LocationAttr, TensorType, i32
from xdsl.ir import Attribute, Operation, OpResult, SSAValue
from xdsl.ir.core import SSAValues
from xdsl.irdl import AttrSizedOperandSegments, IRDLOperation, traits_def
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.layout import stored_bytes
from forgec.ir.ops.format import Bare
from forgec.runtime.symbolic import Extent, sym_max

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

TensorSpec = tuple[str, tuple[Extent, ...]]
"""What ``infer`` yields for one result: the short name of its dtype, and its shape."""


class ForgeEffects(MemoryEffect):
    """No effect, unless the op draws random numbers or defines symbols: such ops are neither merged, moved nor
    removed.
    """

    @classmethod
    def get_effects(cls, op: Operation) -> frozenset[EffectInstance]:
        return _PINNED if getattr(op, "is_pinned", False) else frozenset()


_PINNED = frozenset({EffectInstance(MemoryEffectKind.WRITE)})


class ForgeOp(IRDLOperation, ABC):
    """Base of the forge dialect's tensor ops."""

    custom_directives = (Bare,)

    traits = traits_def(ForgeEffects())

    @abstractmethod
    def infer(self) -> Sequence[TensorSpec]:
        """Dtype and shape of each result, from operands and attributes; raises VerifyException on operands that do
        not fit.
        """

    def flops(self) -> Extent:
        """Floating-point operations (a multiply-add counts two); by default one for each element of the results."""
        return sum((types.numel(r) for r in self.results), start=0)

    def bytes_moved(self) -> Extent:
        """Bytes read from memory and written to it when the op runs alone. A value that is several operands is read
        once.
        """
        reads: dict[SSAValue, Extent] = {}
        for index, operand in enumerate(self.operands):
            found = self.bytes_read(index)
            reads[operand] = found if operand not in reads else sym_max(reads[operand], found)
        return sum(reads.values(), start=self.bytes_written())

    def bytes_read(self, index: int) -> Extent:
        """Bytes that the op reads of one operand; by default all of it, what is broadcast by a stride of 0 once."""
        kind = self.operands[index].type
        return stored_bytes(kind) if isinstance(kind, TensorType) else 0

    def bytes_written(self) -> Extent:
        """Bytes that the op writes; by default every result."""
        return sum((stored_bytes(types.tensor_type(result)) for result in self.results), start=0)

    @abstractmethod
    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        """The op's meaning on CPU tensors, in the simplest way that can be right: one tensor, or a tuple for several
        results.
        """

    def unpack(self, values: Sequence[Any]) -> list[Any]:
        """One entry for each operand definition out of ``values`` (one for each operand): None where an optional one
        is absent.
        """
        rest = iter(values)
        present = [getattr(self, name) for name, _ in self.get_irdl_definition().operands]
        return [
            next(rest) if isinstance(v, SSAValue) else v if v is None else tuple(next(rest) for _ in v) for v in present
        ]

    def verify_(self) -> None:
        expected = self.infer()
        if len(expected) != len(self.results):
            raise VerifyException(f"{self.name} yields {len(expected)} results, found {len(self.results)}")
        for result, (dtype, shape) in zip(self.results, expected, strict=True):
            if types.dtype(result) != dtype or types.shape(result) != tuple(shape):
                found = _spelled(types.dtype(result), types.shape(result))
                raise VerifyException(f"{self.name} yields {_spelled(dtype, shape)}, but the result has type {found}")
            if not types.is_canonical(types.tensor_type(result)):
                raise VerifyException(
                    f"the type {result.type} says something that goes without saying; build it with types.tensor"
                )

    @classmethod
    def make(
        cls,
        operands: Sequence[SSAValue | None],
        properties: Mapping[str, Attribute] | None = None,
        result_types: Sequence[Attribute] | None = None,
        location: LocationAttr | None = None,
    ) -> Self:
        """Build the op; result types are inferred (row-major) unless given.

        Operands are given flat, in order of definition, with None for absent optional ones (at the end they may be left
        out). Raises VerifyException if the operands do not fit.
        """
        properties = dict(properties or {})
        definition = cls.get_irdl_definition()
        if any(isinstance(option, AttrSizedOperandSegments) for option in definition.options):
            given = [*operands, *([None] * (len(definition.operands) - len(operands)))]
            sizes = [0 if operand is None else 1 for operand in given]
            properties[AttrSizedOperandSegments.attribute_name] = DenseArrayBase.from_list(i32, sizes)
        present = [operand for operand in operands if operand is not None]
        op = cls.create(
            operands=present, properties=properties, result_types=list(result_types or []), location=location
        )
        if result_types is None:
            try:
                inferred = [types.tensor(dtype, shape) for dtype, shape in op.infer()]
            except BaseException:
                op.drop_all_references()
                raise
            op.results = SSAValues(OpResult(attribute, op, index) for index, attribute in enumerate(inferred))
        return op


def _spelled(dtype: str, shape: Sequence[Extent]) -> str:
    """``f32[s0, 4]``, for messages."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


class ElementwiseOp(ForgeOp):
    """A pointwise op: every result element depends on the operands' elements at the same (broadcast) position only."""

    FLOPS_PER_ELEMENT: ClassVar[int] = 1

    def flops(self) -> Extent:
        return self.FLOPS_PER_ELEMENT * types.numel(self.results[0])


def tensors(values: Sequence[SSAValue]) -> list[AnyTensorType]:
    """The tensor types of several values."""
    return [types.tensor_type(v) for v in values]


def check_dim(dim: int, rank: int) -> int:
    """``dim`` if it lies in ``[0, rank)`` (rank 0 has dimension 0, as in torch); raises VerifyException outside."""
    if not 0 <= dim < max(rank, 1):
        raise VerifyException(f"dimension {dim} is out of range for rank {rank}")
    return dim


def check_float(op: Operation, value: SSAValue, *, complex_too: bool = False) -> None:
    """Raises VerifyException unless the value holds floating-point numbers."""
    if types.dtype(value) not in (*types.FLOATS, *(types.COMPLEX if complex_too else ())):
        raise VerifyException(f"{op.name} takes floating-point numbers, found {types.dtype(value)}")


def check_index(op: Operation, value: SSAValue) -> None:
    """Raises VerifyException unless the value holds int32 or int64 numbers."""
    if types.dtype(value) not in ("i64", "i32"):
        raise VerifyException(f"{op.name} takes indices of type i64 or i32, found {types.dtype(value)}")


def check_same_dtype(op: Operation, *values: SSAValue) -> str:
    """The dtype that all values have; raises VerifyException where they differ."""
    names = [types.dtype(value) for value in values]
    if len(set(names)) != 1:
        raise VerifyException(f"{op.name} takes operands of one dtype, found {', '.join(names)}")
    return names[0]


def normalize_dim(dim: int, rank: int) -> int:
    """``dim`` in ``[0, rank)``, counting negative ones from the end; raises VerifyException outside."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise VerifyException(f"dimension {dim} is out of range for rank {rank}")
    return dim % max(rank, 1)


def producer(value: SSAValue) -> Operation | None:
    """The op that yields the value, or None for a block argument."""
    return value.owner if isinstance(value.owner, Operation) else None
