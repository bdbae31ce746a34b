"""Random graphs with what transformers are made of, spelled in every way that passes know, and nearly so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from xdsl.dialects.builtin import IntAttr, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr, StateType
from forgec.ir.ops import binary as b
from forgec.ir.ops import creation, shape
from forgec.ir.ops import unary as u
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.module import ParamRefOp, SymbolOp
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.symbolic import evaluate, symbol
from tests.backends.graphs import Graph, GraphAuthor
from tests.chooser import Chooser

SWAPPED = (b.AddOp, b.MulOp, b.MaximumOp, b.MinimumOp, b.LogicalAndOp, b.LogicalOrOp)
"""Ops whose operands a model may write in either order."""
SIZES = ({"s0": 3, "s1": 2}, {"s0": 1, "s1": 1}, {"s0": 6, "s1": 3})
"""What symbols are in turn."""


class Tape:
    """A chooser that records its choices, and repeats them, with one of them changed if wanted."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.recorded: list[int] | None = None
        self.pending: list[int] = []

    def integer(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        if self.pending:
            return min(max(self.pending.pop(0), low), high)
        found = self.chooser.integer(low, high)
        if self.recorded is not None:
            self.recorded.append(found)
        return found


class FragmentAuthor(GraphAuthor):
    """Draws blocks of transformers between ops of all kinds; values that one made are operands of the next."""

    def __init__(self, chooser: Chooser) -> None:
        self.tape = Tape(chooser)
        super().__init__(self.tape)
        self.dtype = self.pick(["f32", "f32", "f32", "f64", "bf16", "f16"])
        self.path = "model"
        self.layer: int | None = None
        self.batch: Any = self.pick([2, 1, symbol("s1"), 2, 1, 0 if self.integer(0, 4) == 0 else 3])
        self.rows: Any = self.pick([3, 4, symbol("s0"), symbol("s0"), 5, 1, 0 if self.integer(0, 4) == 0 else 4])
        self.heads = self.pick([2, 4, 1])
        self.width = self.pick([4, 8, 2])
        self.features = self.heads * self.width
        self.hidden = self.pick([6, 8, self.features])
        self.x: SSAValue
        self.tables: dict[str, tuple[SSAValue, SSAValue]] = {}

    @property
    def module(self) -> str:
        """The path of the module that the next op is in."""
        return self.path if self.layer is None else f"model.layers.{self.layer}.{self.path}"

    def one_in(self, count: int) -> bool:
        """True once in so many times."""
        return self.integer(1, count) == 1

    # Sources

    def tensor_of(self, kind: Any, sizes: dict[str, int] | None = None) -> torch.Tensor:
        """Random numbers of a type: integers are small, half of the booleans true (all of the first column)."""
        extents = [evaluate(extent, sizes or SIZES[0]) for extent in types.shape(kind)]
        dtype = torch_dtype(types.dtype(kind))
        if dtype == torch.bool:
            made = torch.rand(extents, generator=self.random) > 0.5
            made[..., :1] = True
            return made
        if not dtype.is_floating_point:
            return torch.randint(0, 3, extents, generator=self.random).to(dtype)
        values = torch.randn(extents, generator=self.random, dtype=torch.float64)
        if any(not isinstance(extent, int) for extent in types.shape(kind)):
            return values.to(dtype)
        strides = types.strides(kind)
        return torch.empty_strided(extents, strides, dtype=dtype).copy_(values)  # type: ignore[arg-type]

    def given(self, dtype: str, extents: Sequence[Any]) -> SSAValue:
        """A new input."""
        kind = self.strided(dtype, extents)
        self.inputs.append(self.tensor_of(kind))
        place = len(self.inputs) - 1
        argument = self.block.insert_arg(kind, place)
        self.values.append(argument)
        return argument

    def weight(self, *extents: int, dtype: str | None = None) -> SSAValue:
        """A new parameter, or now and then one that is there already."""
        kind = types.tensor(dtype or self.dtype, extents)
        same = [name for name, tensor in self.params.items() if name[0] == "w" and self.kinds.get(name) == kind]
        if same and self.one_in(12):
            name = self.pick(same)
            return self.insert(ParamRefOp.create(properties={"param": SymbolRefAttr(name)}, result_types=[kind]))
        name = f"w{len(self.params)}.{self.module}"
        self.kinds[name] = kind
        value = self.param(name, kind)
        if len(extents) == 2:
            self.params[name] /= 2
        return value

    # Ops

    def n(self, cls: type[b.BinaryOp], left: SSAValue, right: SSAValue | float) -> SSAValue:
        """A binary op of two values, in either order where that does not matter, or of a value and a number."""
        if not isinstance(right, SSAValue):
            if self.one_in(8):
                return self.n(cls, left, self.full(right, types.dtype(left)))
            return self.emit(cls, left, None, scalar=ScalarAttr.of(right))
        if cls in SWAPPED and self.one_in(2):
            left, right = right, left
        return self.emit(cls, left, right)

    def full(self, value: float, dtype: str, extents: Sequence[Any] = ()) -> SSAValue:
        return self.emit(creation.FullOp, kind=types.tensor(dtype, extents), value=ScalarAttr.of(value))

    def iota(self, count: Any, start: Any = 0) -> SSAValue:
        kind = types.tensor("i64", [count])
        return self.emit(creation.IotaOp, kind=kind, start=ExtentAttr(start), step=ExtentAttr(1))

    def cast(self, value: SSAValue, dtype: str) -> SSAValue:
        if types.dtype(value) == dtype:
            return value
        return self.emit(u.CastOp, value, kind=types.tensor(dtype, types.shape(value)))

    def reshape(self, value: SSAValue, *extents: Any) -> SSAValue:
        return self.emit(shape.ReshapeOp, value, kind=types.tensor(types.dtype(value), extents))

    def broadcast(self, value: SSAValue, *extents: Any) -> SSAValue:
        return self.emit(shape.BroadcastOp, value, kind=types.tensor(types.dtype(value), extents))

    def transpose(self, value: SSAValue, *order: int) -> SSAValue:
        """A transpose that lies as a view does, or row-major."""
        extents, strides = types.shape(value), types.strides(value)
        kind = types.tensor(types.dtype(value), [extents[d] for d in order], [strides[d] for d in order])
        if self.one_in(4):
            kind = types.tensor(types.dtype(value), [extents[d] for d in order])
        return self.emit(shape.TransposeOp, value, kind=kind, permutation=IntsAttr(order))

    def slice(self, value: SSAValue, dim: int, start: Any, count: Any, step: int = 1) -> SSAValue:
        extents = list(types.shape(value))
        dim %= len(extents)
        extents[dim] = count
        place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}
        return self.emit(shape.SliceOp, value, kind=types.tensor(types.dtype(value), extents), **place)

    def concat(self, *values: SSAValue, dim: int) -> SSAValue:
        return self.emit(shape.ConcatOp, *values, dim=IntAttr(dim % types.rank(values[0])))

    def linear(self, x: SSAValue, count: int, *, bias: bool | None = None) -> SSAValue:
        """A linear, or the product with a transposed weight; its weight may be in two dtypes."""
        weight = self.weight(count, types.shape(x)[-1], dtype=types.dtype(x))
        with_bias = self.one_in(3) if bias is None else bias
        offset = self.weight(count, dtype=types.dtype(x)) if with_bias else None
        if self.one_in(8):
            y = self.emit(MatmulOp, x, self.transpose(weight, 1, 0))
            return y if offset is None else self.n(b.AddOp, y, offset)
        return self.emit(LinearOp, x, weight, *([] if offset is None else [offset]))

    def emit(
        self, cls: type[ForgeOp], *operands: SSAValue | None, kind: Attribute | None = None, **properties: Attribute
    ) -> SSAValue:
        """Insert an op; its result is row-major unless ``kind`` says otherwise, but now and then in another order."""
        if kind is None and not self.one_in(10):
            return self.insert(cls.make(operands, properties))
        return super().emit(cls, *operands, kind=kind, **properties)

    def step(self) -> None:
        """One op of any kind; more often than in other graphs one that has several dtypes, or integers."""
        if not self.one_in(4):
            super().step()
            return
        with contextlib.suppress(VerifyException):
            self.pick([self._convert, self._count, self._promote])()

    def _convert(self) -> None:
        dtypes = ["f32", "f64", "bf16", "f16", "i64", "i32", "i1"]
        self.cast(self.value(lambda v: types.dtype(v) in dtypes), self.pick(dtypes))

    def _count(self) -> None:
        """Integers or booleans with a number."""
        source = self.value(lambda v: types.dtype(v) in ("i64", "i32", "i1"))
        cls = self.pick([b.AddOp, b.SubOp, b.MulOp, b.EqOp, b.LeOp, b.FloorDivOp, b.PowOp, b.MaximumOp])
        whole = cls in (b.FloorDivOp, b.PowOp)
        if cls is b.SubOp or whole:
            source = self.value(lambda v: types.dtype(v) in ("i64", "i32"))
        numbers = [1, 2, 3] if whole else [1, 2, 0.5, 2 if cls is b.SubOp else True]
        self.emit(cls, source, None, scalar=ScalarAttr.of(self.pick(numbers)))

    def _promote(self) -> None:
        """Two values of any dtypes that broadcast."""
        left = self.value()
        shape = types.shape(left)
        right = self.value(lambda v: types.shape(v) in (shape, (), shape[-1:], (*shape[:-1], 1)))
        self.n(self.pick([b.AddOp, b.MulOp, b.LtOp, b.EqOp]), left, right)

    # Graphs

    def draw(self, ops: int = 8, fragments: Sequence[Callable[[FragmentAuthor], None]] = ()) -> Graph:
        """A graph of one to three layers of these fragments (or of some), between about so many ops of any kind."""
        from tests.fragments.recipes import FRAGMENTS

        self.kinds: dict[str, Attribute] = {}
        for name in ("s0", "s1"):
            named = {"sym_name": StringAttr(name), "label": StringAttr(name)}
            limits = {"minimum": ExtentAttr(1), "maximum": ExtentAttr(64)}
            self.header.append(SymbolOp.create(properties={**named, **limits}))
        self.x = self.given(self.dtype, [self.batch, self.rows, self.features])
        if self.one_in(4):
            self.add_input()
        for number in range(self.integer(0, 1)):
            self.add_state(f"state{number}")
        for _ in range(self.integer(0, ops // 2)):
            self.step()
        fragments = fragments or [self.pick(FRAGMENTS) for _ in range(self.integer(1, 2))]
        self.layers(fragments, self.pick([1, 1, 1, 2, 2, 3]))
        for _ in range(self.integer(0, ops // 2)):
            self.step()
        return self.finish()

    def layers(self, fragments: Sequence[Callable[[FragmentAuthor], None]], count: int) -> None:
        """The same fragments with other parameters; sometimes with one choice made otherwise in the last layer."""
        recorded = self.tape.recorded = []
        for number in range(count):
            if count > 1:
                self.layer = number
            if number:
                self.tape.pending = list(recorded)
                self._change_a_choice(number == count - 1)
            for fragment in fragments:
                self.path = fragment.__name__
                with contextlib.suppress(VerifyException):
                    fragment(self)
            self.tape.recorded = None
        self.tape.pending = []
        self.layer, self.path = None, "model"

    def _change_a_choice(self, last: bool) -> None:
        choices, chooser = self.tape.pending, self.tape.chooser
        if last and choices and chooser.integer(1, 3) == 1:
            choices[chooser.integer(0, len(choices) - 1)] += chooser.integer(0, 2) - 1

    def finish(self, *first: SSAValue) -> Graph:
        """The function returns what the layers made, and some other values."""
        graph = super().finish(self.x, *first)
        graph.sizes = [self._inputs(sizes) for sizes in SIZES[1:]] if self._has_symbols() else []
        return graph

    def _has_symbols(self) -> bool:
        kinds = [argument.type for argument in self.block.args if not isinstance(argument.type, StateType)]
        return any(not isinstance(extent, int) for kind in kinds for extent in types.shape(kind))

    def _inputs(self, sizes: dict[str, int]) -> list[torch.Tensor]:
        kinds = [argument.type for argument in self.block.args if not isinstance(argument.type, StateType)]
        return [self.tensor_of(kind, sizes) for kind in kinds]
