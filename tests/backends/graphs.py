"""Random forge modules: views, pointwise ops, products, reductions, gathers, updates and writes of state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr, SymbolRefAttr, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import Location
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr, StateType
from forgec.ir.literals import literal
from forgec.ir.locations import to_attribute
from forgec.ir.ops import binary as b
from forgec.ir.ops import creation, index, reduction, select, shape
from forgec.ir.ops import unary as u
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.module import ConstantOp, ParamOp, ParamRefOp, StateReadOp, StateWriteOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.runtime.dtypes import torch_dtype
from tests.chooser import Chooser

SMOOTH = [u.NegOp, u.AbsOp, u.SinOp, u.TanhOp, u.SigmoidOp, u.SiluOp, u.ReluOp, u.ExpOp, u.FloorOp, u.RsqrtOp, u.ErfOp]
ARITHMETIC = [b.AddOp, b.SubOp, b.MulOp, b.RsubOp, b.MaximumOp, b.MinimumOp]
REDUCTIONS = [reduction.SumOp, reduction.MeanOp, reduction.AmaxOp, reduction.AminOp, reduction.ProdOp]


class Graph:
    """A module with one function, and tensors for its inputs, parameters and states."""

    def __init__(self, module: ModuleOp, inputs: list[torch.Tensor], params: dict[str, torch.Tensor]) -> None:
        self.module, self.inputs, self.params = module, inputs, params
        self.sizes: list[list[torch.Tensor]] = []
        """Inputs where symbols are other numbers."""

    def arguments(self, inputs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """A tensor for each argument of the function: inputs, then the initial values of states."""
        return [
            *(self.inputs if inputs is None else inputs),
            *(t for name, t in self.params.items() if name.startswith("state")),
        ]


def numbers(extents: Sequence[Any]) -> Sequence[int]:
    """The extents, which must be known; raises VerifyException where one is a symbol."""
    if all(isinstance(extent, int) for extent in extents):
        return extents
    raise VerifyException("an extent is not known")


class GraphAuthor:
    """Draws a module op by op; what does not verify is dropped.

    Floating-point values are of ``dtype``; in float64, sums in another order differ by far less than the tolerance of a
    comparison. What has symbols among its extents is left out where an op wants numbers.
    """

    def __init__(self, chooser: Chooser, dtype: str = "f64") -> None:
        self.chooser = chooser
        self.dtype = dtype
        self.block = Block()
        self.builder = Builder(InsertPoint.at_end(self.block))
        self.header: list[Operation] = []
        self.inputs: list[torch.Tensor] = []
        self.params: dict[str, torch.Tensor] = {}
        self.values: list[SSAValue] = []
        self.states: list[SSAValue] = []
        self.count = 0
        self.random = torch.Generator().manual_seed(self.integer(0, 9))

    def draw(self, ops: int) -> Graph:
        """A graph of about so many ops."""
        for _ in range(self.integer(1, 3)):
            self.add_input()
        for number in range(self.integer(0, 2)):
            self.add_param(f"weight{number}")
        for number in range(self.integer(0, 2)):
            self.add_state(f"state{number}")
        for _ in range(self.integer(1, ops)):
            self.step()
        return self.finish()

    # Choosing

    def integer(self, low: int, high: int) -> int:
        return self.chooser.integer(low, high)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.integer(0, len(items) - 1)]

    def value(self, accept: Callable[[SSAValue], bool] = lambda v: True) -> SSAValue:
        """A value, later ones more often; raises VerifyException if none is accepted."""
        fit = [v for v in self.values if accept(v)]
        if not fit:
            raise VerifyException("no such value")
        return fit[max(self.integer(0, len(fit) - 1), self.integer(0, len(fit) - 1))]

    def float(self, ranks: Sequence[int] = range(9)) -> SSAValue:
        """A value of the floating-point type."""
        return self.value(lambda v: types.dtype(v) == self.dtype and types.rank(v) in ranks)

    def like(self, other: SSAValue, dtype: str | None = None) -> SSAValue:
        """A value of the same shape (and dtype)."""
        wanted = dtype or types.dtype(other)
        return self.value(lambda v: types.shape(v) == types.shape(other) and types.dtype(v) == wanted)

    def compatible(self, other: SSAValue) -> SSAValue:
        """A value of the same dtype that broadcasts with another."""

        def fits(v: SSAValue) -> bool:
            try:
                types.broadcast(types.shape(v), types.shape(other))
            except VerifyException:
                return False
            return types.dtype(v) == types.dtype(other)

        return self.value(fits)

    def extents(self) -> list[int]:
        """A shape of rank 1 to 3; now and then with an extent of 0 or 1."""
        return [
            self.pick([2, 3, 4, 2, 3, 4, 1, 0 if self.integer(0, 5) == 0 else 5]) for _ in range(self.integer(1, 3))
        ]

    def strided(self, dtype: str, extents: Sequence[Any]) -> Attribute:
        """A dense type whose dimensions are stored in some order."""
        order = list(range(len(extents)))
        if not all(isinstance(extent, int) for extent in extents):
            return types.tensor(dtype, extents)
        if self.integer(0, 2) == 0:
            order = [order.pop(self.integer(0, len(order) - 1)) for _ in range(len(order))]
        strides, step = [0] * len(extents), 1
        for dim in reversed(order):
            strides[dim], step = step, step * max(extents[dim], 1)
        return types.tensor(dtype, extents, strides)

    # Sources

    def tensor_of(self, kind: Any) -> torch.Tensor:
        """Random numbers of a type, with its strides."""
        shape, strides = types.shape(kind), types.strides(kind)
        made = torch.empty_strided(shape, strides, dtype=torch_dtype(types.dtype(kind)))  # type: ignore[arg-type]
        return made.copy_(torch.randn(shape, generator=self.random, dtype=torch.float64))  # type: ignore[arg-type]

    def add_input(self) -> None:
        kind = self.strided(self.dtype, self.extents())
        self.inputs.append(self.tensor_of(kind))
        self.values.append(self.block.insert_arg(kind, len(self.inputs) - 1))

    def add_param(self, name: str) -> None:
        self.param(name, self.strided(self.dtype, self.extents()))

    def param(self, name: str, kind: Any) -> SSAValue:
        """A new parameter of a type, read."""
        self.params[name] = self.tensor_of(kind)
        self.header.append(ParamOp.create(properties={"sym_name": StringAttr(name), "type": kind}))
        return self.insert(ParamRefOp.create(properties={"param": SymbolRefAttr(name)}, result_types=[kind]))

    def add_state(self, name: str) -> None:
        self.state(name, types.tensor(self.dtype, [self.pick([2, 3, 4]) for _ in range(self.integer(1, 3))]))

    def state(self, name: str, kind: Any) -> SSAValue:
        """A new state that holds a value of a type, read."""
        self.params[name] = self.tensor_of(kind)
        argument = self.block.insert_arg(StateType(kind), len(self.block.args))
        argument.name_hint = name
        self.states.append(argument)
        return self.insert(StateReadOp.create(operands=[argument], result_types=[kind]))

    # Ops

    @property
    def module(self) -> str:
        """The path of the module that the next op is in."""
        return f"layers.{self.count}"

    def insert(self, op: Operation) -> SSAValue:
        self.count += 1
        op.location = to_attribute(Location("model.py", self.count, "Model.forward", self.module))
        if not isinstance(op, StateReadOp):  # whose state is consumed later
            op.verify(verify_nested_ops=False)
        self.builder.insert(op)
        self.values += op.results
        return op.results[0]

    def emit(
        self, cls: type[ForgeOp], *operands: SSAValue | None, kind: Attribute | None = None, **properties: Attribute
    ) -> SSAValue:
        """Insert an op; its result is stored in some order of dimensions unless ``kind`` says which."""
        op = cls.make(operands, properties, None if kind is None else [kind])
        if kind is None:
            dtype, extents = types.dtype(op.results[0]), types.shape(op.results[0])
            op = cls.make(operands, properties, [self.strided(dtype, extents)])
        return self.insert(op)

    def step(self) -> None:
        """Draw one op; nothing is added where the values at hand do not fit it."""
        kinds = [
            *[self.pointwise] * 4,
            *[self.binary] * 4,
            *[self.view] * 6,
            *[self.update] * 4,
            self.reduce,
            self.along,
            self.product,
            self.norm,
            self.gather,
            self.choose,
            self.create,
            self.join,
            self.fallback,
            self.attend,
            *([self.write_state] * 3 if self.states else []),
        ]
        try:
            self.pick(kinds)()
        except VerifyException:
            return

    def pointwise(self) -> None:
        self.emit(self.pick(SMOOTH), self.float())

    def binary(self) -> None:
        left = self.float()
        cls = self.pick(ARITHMETIC)
        if self.integer(0, 3) == 0:
            self.emit(cls, left, None, scalar=ScalarAttr.of(self.pick([2, 0.5, -1, 1, 0, 0.0, -0.0])))
        else:
            self.emit(cls, left, self.compatible(left))

    def view(self) -> None:
        source = self.value()
        dtype, extents = types.dtype(source), list(types.shape(source))
        rank = len(extents)
        kind = self.integer(0, 6)
        if kind == 0:
            order = list(range(rank))
            order = [order.pop(self.integer(0, len(order) - 1)) for _ in range(rank)]
            strides = types.strides(source)
            turned = types.tensor(dtype, [extents[d] for d in order], [strides[d] for d in order])
            self.emit(shape.TransposeOp, source, kind=turned, permutation=IntsAttr(order))
        elif kind == 1:
            self.emit(shape.ReshapeOp, source, kind=types.tensor(dtype, self.another_shape(extents)))
        elif kind == 2:
            grown = [self.pick([2, 3]) if n == 1 and self.integer(0, 1) else n for n in extents]
            self.emit(shape.BroadcastOp, source, kind=types.tensor(dtype, [*[2] * self.integer(0, 1), *grown]))
        elif kind == 3:
            self.emit(shape.CopyOp, source, kind=self.strided(dtype, extents))
        elif rank:
            dim, start, step, count = self.window(extents)
            cut = [count if d == dim else n for d, n in enumerate(extents)]
            place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}
            self.emit(shape.SliceOp, source, kind=types.tensor(dtype, cut), **place)

    def another_shape(self, extents: Sequence[Any]) -> list[int]:
        """A shape of as many elements."""
        count = prod(numbers(extents))
        choices = [[count], [1, count], [*extents, 1], [extents[0] if extents else 1, -1], [-1, 2], [2, -1], [3, -1]]
        chosen = list(self.pick(choices))
        rest = prod(n for n in chosen if n != -1)
        return [count // max(rest, 1) if n == -1 else n for n in chosen]

    def window(self, extents: Sequence[Any]) -> tuple[int, int, int, int]:
        """Dimension, start, step and count of a slice."""
        dim = self.integer(0, len(extents) - 1)
        numbers(extents[dim : dim + 1])
        step = self.integer(1, 2)
        start = self.integer(0, extents[dim])
        return dim, start, step, self.integer(0, max(0, -(-(extents[dim] - start) // step)))

    def update(self) -> None:
        target = self.float(range(1, 9))
        extents = list(types.shape(target))
        dim, start, step, count = self.window(extents)
        kind = self.integer(0, 5)
        if kind < 3:
            cut = [count if d == dim else n for d, n in enumerate(extents)]
            source = self.sized(cut)
            place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}
            self.emit(shape.InsertSliceOp, source, target, kind=target.type, **place)
        elif kind == 3:
            places = self.indices(extents[dim], distinct=True)
            source = self.sized([types.shape(places)[0] if d == dim else n for d, n in enumerate(extents)])
            self.emit(index.IndexCopyOp, target, places, source, kind=target.type, dim=IntAttr(dim))
        elif kind == 4:
            places = self.indices(extents[dim], distinct=True)
            found = index.IndexOp.make([target, places], {"dims": IntsAttr([dim])})
            source = self.sized(types.shape(found.result))
            found.erase()
            flags = {"accumulate": UnitAttr()} if self.integer(0, 1) else {}
            self.emit(index.IndexPutOp, target, source, places, kind=target.type, dims=IntsAttr([dim]), **flags)
        else:
            mask = self.value(lambda v: types.dtype(v) == "i1")
            self.emit(select.MaskedFillOp, target, mask, value=ScalarAttr.of(self.pick([0, 1.5, -2])))

    def sized(self, extents: Sequence[Any]) -> SSAValue:
        """A float value of a shape: one at hand, a slice of one, or a new one."""
        fit = [v for v in self.values if types.dtype(v) == self.dtype and types.shape(v) == tuple(extents)]
        if fit and self.integer(0, 3):
            return self.pick(fit)
        numbers(extents)
        larger = [
            v
            for v in self.values
            if types.dtype(v) == self.dtype
            and all(isinstance(n, int) for n in types.shape(v))
            and types.rank(v) == len(extents)
            and sum(n != m for n, m in zip(types.shape(v), extents, strict=True)) == 1
            and all(n >= m for n, m in zip(types.shape(v), extents, strict=True))
        ]
        if not larger:
            return self.emit(creation.FullOp, kind=types.tensor(self.dtype, extents), value=ScalarAttr.of(0.25))
        source = self.pick(larger)
        dim = next(d for d, (n, m) in enumerate(zip(types.shape(source), extents, strict=True)) if n != m)
        start = self.integer(0, types.shape(source)[dim] - extents[dim])
        place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(1)}
        return self.emit(shape.SliceOp, source, kind=types.tensor(self.dtype, extents), **place)

    def indices(self, extent: Any, distinct: bool = False) -> SSAValue:
        """A literal of indices into an extent; raises VerifyException where there are none."""
        if not isinstance(extent, int) or not extent:
            raise VerifyException("nothing to index")
        if distinct:
            chosen = torch.randperm(extent, generator=self.random)[: self.integer(1, extent)]
        else:
            chosen = torch.tensor([self.integer(0, extent - 1) for _ in range(self.integer(1, 4))])
        return self.constant(chosen)

    def constant(self, tensor: torch.Tensor) -> SSAValue:
        kind = types.tensor("i64", tuple(tensor.shape))
        return self.insert(ConstantOp.create(properties={"value": literal(tensor, kind)}, result_types=[kind]))

    def reduce(self) -> None:
        source = self.float(range(1, 9))
        cls = self.pick(REDUCTIONS)
        dims = sorted({self.integer(0, types.rank(source) - 1) for _ in range(2)})
        if cls is reduction.ProdOp:
            dims = dims[:1]
        if cls in (reduction.AmaxOp, reduction.AminOp) and any(types.shape(source)[d] == 0 for d in dims):
            raise VerifyException("no extreme of nothing")
        flags = {"keepdim": UnitAttr()} if self.integer(0, 1) else {}
        self.emit(cls, source, dims=IntsAttr(dims), **flags)

    def along(self) -> None:
        source = self.float(range(1, 9))
        dim = self.integer(0, types.rank(source) - 1)
        self.emit(
            self.pick([reduction.CumsumOp, reduction.SoftmaxOp, reduction.LogSoftmaxOp]), source, dim=IntAttr(dim)
        )

    def product(self) -> None:
        left = self.float(range(2, 4))
        inner = types.shape(left)[-1]
        if self.integer(0, 1):
            right = self.value(
                lambda v: types.dtype(v) == self.dtype and types.rank(v) >= 2 and types.shape(v)[-2] == inner
            )
            self.emit(MatmulOp, left, right)
        else:
            weight = self.value(
                lambda v: types.dtype(v) == self.dtype and types.rank(v) == 2 and types.shape(v)[-1] == inner
            )
            self.emit(LinearOp, left, weight)

    def norm(self) -> None:
        source = self.float(range(1, 9))
        self.emit(self.pick([LayerNormOp, RmsNormOp]), source, axes=IntAttr(1), eps=ScalarAttr.of(1e-5))

    def gather(self) -> None:
        source = self.float(range(1, 9))
        dim = self.integer(0, types.rank(source) - 1)
        places = self.indices(types.shape(source)[dim])
        if self.integer(0, 1):
            self.emit(index.IndexSelectOp, source, places, dim=IntAttr(dim))
        else:
            self.emit(index.IndexOp, source, places, dims=IntsAttr([dim]))

    def choose(self) -> None:
        source = self.float()
        if self.integer(0, 1):
            self.emit(b.GtOp, source, None, scalar=ScalarAttr.of(0.31))
        else:
            condition = self.like(source, "i1")
            self.emit(select.WhereOp, condition, source, self.compatible(source))

    def create(self) -> None:
        value = ScalarAttr.of(self.pick([0.0, 1.0, -0.5]))
        self.emit(creation.FullOp, kind=types.tensor(self.dtype, self.extents()), value=value)

    def join(self) -> None:
        source = self.float(range(1, 9))
        dim = self.integer(0, types.rank(source) - 1)
        rest = [d for d in range(types.rank(source)) if d != dim]

        def fits(v: SSAValue) -> bool:
            if types.dtype(v) != self.dtype or types.rank(v) != types.rank(source):
                return False
            return all(types.shape(v)[d] == types.shape(source)[d] for d in rest)

        self.emit(shape.ConcatOp, source, *(self.value(fits) for _ in range(self.integer(1, 2))), dim=IntAttr(dim))

    def fallback(self) -> None:
        source = self.float(range(1, 9))
        kind = types.tensor(self.dtype, types.shape(source))
        callee, args = self.pick([("aten::flip", [source, (0,)]), ("aten::roll", [source, (1,), (0,)])])
        self.insert(AtenOp.of(callee, args, [], [kind]))

    def attend(self) -> None:
        query = self.float([3])
        key = self.value(
            lambda v: (
                types.dtype(v) == self.dtype
                and types.rank(v) == 3
                and types.shape(v)[0] == types.shape(query)[0]
                and types.shape(v)[2] == types.shape(query)[2]
            )
        )
        if 0 in types.shape(query) or 0 in types.shape(key):
            raise VerifyException("nothing to attend")
        flags = {"causal": UnitAttr()} if self.integer(0, 1) else {}
        self.emit(AttentionOp, query, key, key, scale=ScalarAttr.of(0.5), softmax_dtype=StringAttr("f64"), **flags)

    def write_state(self) -> None:
        number = self.integer(0, len(self.states) - 1)
        state = self.states[number]
        assert isinstance(state.type, StateType)
        kind = state.type.value
        value = self.value(lambda v: types.dtype(v) == types.dtype(kind) and types.shape(v) == types.shape(kind))
        self.write(number, value)

    def write(self, number: int, value: SSAValue) -> SSAValue:
        """Write a state by its number; what is read from it then."""
        kind = self.states[number].type
        write = StateWriteOp.create(operands=[self.states[number], value], result_types=[kind])
        self.count += 1
        write.location = to_attribute(Location("model.py", self.count, "Model.forward", "state"))
        self.builder.insert(write)
        self.states[number] = write.results[0]
        return self.insert(StateReadOp.create(operands=[write.results[0]], result_types=[kind.value]))

    def finish(self, *first: SSAValue) -> Graph:
        """The function returns some values, some of them twice, and the states."""
        returned = [*first, *(self.value() for _ in range(self.integer(1, 4) if self.values else 0))]
        self.builder.insert(ReturnOp(*returned, *self.states))
        results = [v.type for v in (*returned, *self.states)]
        function = FuncOp("forward", (list(self.block.arg_types), results), Region(self.block))
        module = ModuleOp([*self.header, function])
        module.verify()
        return Graph(module, self.inputs, self.params)
