"""Hand-made plans, in few lines: registers by name, arguments as tuples."""

from __future__ import annotations

from typing import Any

from forgec.diagnostics import Location
from forgec.runtime import tree
from forgec.runtime.plan import (
    Buffer,
    Entry,
    External,
    Input,
    Launch,
    Leaf,
    Literal,
    Output,
    Param,
    Plan,
    Reg,
    Register,
    State,
    SymbolDecl,
    TensorSpec,
    View,
)
from forgec.runtime.symbolic import Extent

PLACE = Location("model.py", 3, "Model.forward", "layers.0")


def f32(*shape: Extent) -> TensorSpec:
    return TensorSpec.contiguous("f32", shape)


class EntryBuilder:
    """Collects registers and launches; ``r["x"]`` is the ``Reg`` of the register named x."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.registers: list[Register] = []
        self.launches: list[Launch] = []
        self.numbers: dict[str, int] = {}
        self.inputs: list[Leaf] = []
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.parameters: list[str] = []

    def __getitem__(self, name: str) -> Reg:
        return Reg(self.numbers[name])

    def add(self, name: str, register: Register) -> Reg:
        self.numbers[name] = len(self.registers)
        self.registers.append(register)
        return Reg(self.numbers[name])

    def input(self, name: str, spec: TensorSpec, *, inout: bool = False) -> Reg:
        reg = self.add(name, Input(spec, len(self.inputs), name, inout))
        self.inputs.append(reg.id)
        self.args.append(0)
        self.parameters.append(name)
        return reg

    def fixed(self, name: str, value: Any) -> None:
        """A keyword argument that must have this value."""
        self.inputs.append(Literal(value))
        self.kwargs[name] = 0

    def param(self, name: str, spec: TensorSpec) -> Reg:
        return self.add(name, Param(spec, name))

    def state(self, name: str, spec: TensorSpec, *, zeros: bool = True) -> Reg:
        return self.add(name, State(spec, name, zeros))

    def buffer(self, name: str, spec: TensorSpec, offset: int | None, first: int, last: int) -> Reg:
        return self.add(name, Buffer(spec, spec.nbytes, offset, first, last))

    def output(self, name: str, spec: TensorSpec) -> Reg:
        return self.add(name, Output(spec))

    def external(self, name: str, spec: TensorSpec, first: int, last: int) -> Reg:
        return self.add(name, External(spec, first, last))

    def view(self, name: str, spec: TensorSpec, base: Reg, offset: Extent = 0) -> Reg:
        return self.add(name, View(spec, base.id, offset))

    def out(self, op: str, *args: Any, out: Reg, **kwargs: Any) -> None:
        """A launch that writes its ``out=`` argument."""
        pairs = (*kwargs.items(), ("out", out))
        self.launches.append(Launch(op, args, pairs, writes=(out.id,), source="forge.test", location=0))

    def inplace(self, op: str, target: Reg, *args: Any) -> None:
        """A launch that writes its first argument."""
        self.launches.append(Launch(op, (target, *args), writes=(target.id,), source="forge.test", location=0))

    def call(self, op: str, *args: Any, results: tuple[Reg | None, ...], **kwargs: Any) -> None:
        """A launch whose results are externals."""
        numbers = tuple(None if reg is None else reg.id for reg in results)
        self.launches.append(Launch(op, args, tuple(kwargs.items()), results=numbers, source="forge.test", location=0))

    def kernel(self, name: str, *args: Any, grid: tuple[Extent, ...], writes: tuple[Reg, ...]) -> None:
        """A launch of a native kernel."""
        written = tuple(reg.id for reg in writes)
        launch = Launch(f"kernel::{name}", args, (("grid", grid),), writes=written, source="forge.test", location=0)
        self.launches.append(launch)

    def build(self, outputs: Any, *, arena: int | None = None, peak: int | None = None) -> Entry:
        """The entry; ``outputs`` is the result's structure with ``Reg``, ``Literal`` or ``SymExpr`` leaves."""
        leaves, out_tree = tree.flatten(_unwrap(outputs))
        return Entry(
            name=self.name,
            registers=tuple(self.registers),
            launches=tuple(self.launches),
            inputs=tuple(self.inputs),
            outputs=tuple(leaf.leaf for leaf in leaves),
            in_tree=tree.flatten((tuple(self.args), self.kwargs))[1],
            out_tree=out_tree,
            parameters=tuple(self.parameters),
            arena_bytes=arena,
            peak_bytes=peak,
        )


class _Leaf:
    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf


def _unwrap(value: Any) -> Any:
    """Wraps the leaves: Literals and Regs are dataclasses, which the tree would take apart."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_unwrap, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_unwrap, value))
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    return _Leaf(value.id if isinstance(value, Reg) else value)


def plan_of(*entries: Entry, symbols: tuple[SymbolDecl, ...] = ()) -> Plan:
    return Plan(entries, symbols, (PLACE,), torch_version="2.11")
