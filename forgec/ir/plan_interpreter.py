"""Reference execution of a plan: the launches in order, over an arena made of bytes.

The arena is real: two registers that the plan places on the same bytes overwrite each other here too, so a wrong live
range or offset gives a wrong answer. In float64 every byte of the plan becomes eight, which leaves room for any
element. Fresh memory is filled with NaN (all bits set), so that reading what was never written shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from forgec.diagnostics import error
from forgec.ir import plan, types
from forgec.ir.evaluator import Evaluator
from forgec.ir.extents import bind
from forgec.ir.layout import span_bytes
from forgec.ir.liveness import live_ranges
from forgec.ir.locations import location_of
from forgec.runtime import control
from forgec.runtime.kernels import GRID, is_kernel, kernel_name
from forgec.runtime.linear_scan import Interval, allocate
from forgec.runtime.plan import Launch, Reg
from forgec.runtime.symbolic import SymExpr
from forgec.runtime.tensor_library import torch_library

SCALE = 8
"""Bytes here for each byte of the plan: enough for float64 in place of any element type."""

Kernels: TypeAlias = Mapping[str, Callable[[list[Any], list[int]], None]]
"""What a native kernel computes, by its name: it gets the tensors and the extents of a launch and writes into the
tensors what all programs of the grid together write. In float64 the floating-point tensors are float64."""


def interpret_plan(
    module: ModuleOp,
    inputs: Sequence[Any],
    params: Mapping[str, Any],
    *,
    entry: str = "forward",
    float64: bool = False,
    symbols: Mapping[str, int] | None = None,
    kernels: Kernels | None = None,
) -> list[Any]:
    """Run an entry on CPU tensors: the returned leaves that are tensors, then the final values of states.

    ``inputs`` are the tensors of ``plan.input`` in order of their index; ``params`` holds weights and initial states
    by name.
    Inputs that the plan writes are cloned first. ``symbols`` are values of symbols that no tensor's shape tells.
    ``kernels`` are the meanings of native kernels that the plan launches; those that the module defines on tiles
    (``tile.kernel``) have theirs. FORGE-I003 for one without.
    """
    found = next((op for op in module.ops if isinstance(op, plan.EntryOp) and op.sym_name.data == entry), None)
    if found is None:
        raise error("FORGE-I003", f"there is no plan.entry @{entry}")
    known = {**_tile_kernels(module, float64), **(kernels or {})}
    return _Execution(found, inputs, params, float64, symbols or {}, known).run()


def _tile_kernels(module: ModuleOp, float64: bool) -> Kernels:
    """The kernels of tiles that a module defines, by name."""
    from forgec.ir.tile.interpreter import run_kernel
    from forgec.ir.tile.kernel import KernelOp

    def meaning(kernel: KernelOp) -> Callable[[list[Any], list[int]], None]:
        return lambda tensors, extents: run_kernel(kernel, tensors, extents, float64=float64)

    return {op.sym_name.data: meaning(op) for op in module.ops if isinstance(op, KernelOp)}


class _Execution:
    def __init__(
        self,
        entry: plan.EntryOp,
        inputs: Sequence[Any],
        params: Mapping[str, Any],
        float64: bool,
        given: Mapping[str, int],
        kernels: Kernels,
    ) -> None:
        self.entry = entry
        self.params = params
        self.kernels = kernels
        self.inputs = inputs
        declared = sorted(
            (op for op in entry.body.block.ops if isinstance(op, plan.InputOp)), key=lambda op: op.index.data
        )
        symbols = bind([types.shape(op.result) for op in declared], [tuple(t.shape) for t in inputs])
        self.ev = Evaluator({**given, **symbols}, params, float64)
        self.offsets = self._offsets()
        size = max((self.offsets[op] + self._bytes(op.result) for op in self.offsets), default=0)
        self.arena = self._fresh(size * SCALE)
        self.values: dict[SSAValue, Any] = {}
        self.storages: dict[SSAValue, Any] = {}
        self.states: list[Any] = []

    def _bytes(self, value: SSAValue) -> int:
        return self.ev.extent(span_bytes(types.tensor_type(value)))

    def _fresh(self, size: int) -> Any:
        return self.ev.torch.full((size,), 255, dtype=self.ev.torch.uint8)

    def _offsets(self) -> dict[plan.BufferOp, int]:
        """Offsets as the plan says; a dynamic plan's as the runtime would compute them."""
        buffers = [op for op in self.entry.body.block.ops if isinstance(op, plan.BufferOp)]
        if all(op.offset is not None for op in buffers):
            return {op: self.ev.extent(op.offset.data) for op in buffers if op.offset is not None}
        ranges = live_ranges(self.entry)
        sizes = [self.ev.extent(op.nbytes.data) for op in buffers]
        intervals = [Interval(size, *ranges[op.result]) for op, size in zip(buffers, sizes, strict=True)]
        return dict(zip(buffers, allocate(intervals).offsets, strict=True))

    def run(self) -> list[Any]:
        for op in self.entry.body.block.ops:
            if isinstance(op, plan.LaunchOp):
                self._launch(op)
            elif isinstance(op, plan.ReturnOp):
                returned = [self.values[op.operands[a.id]] for a in op.leaves.arguments[0] if isinstance(a, Reg)]
                return [t.clone() for t in returned] + self.states
            elif isinstance(op, plan.RegisterOp):
                self._declare(op)
        return []

    def _declare(self, op: plan.RegisterOp) -> None:
        kind = types.tensor_type(op.result)
        if isinstance(op, plan.ViewOp):
            base = self.storages[op.base]
            width = self.ev.dtype(kind).itemsize
            start = base.storage_offset() * base.element_size() // width + self.ev.extent(op.offset.data)
            typed = base.untyped_storage()
            self.values[op.result] = self._over(typed, kind, start)
            return
        if isinstance(op, plan.InputOp):
            given = self.ev.widen(self.inputs[op.index.data].detach())
            tensor = self._like(kind)
            tensor.copy_(given)
            if op.inout is not None:
                self.states.append(tensor)
        elif isinstance(op, plan.ParamOp):
            tensor = self.ev.param(op.label.data)
        elif isinstance(op, plan.ConstantOp):
            tensor = self.ev.literal(op.value)
        elif isinstance(op, plan.StateOp):
            tensor = self._like(kind)
            tensor.zero_() if op.zeros is not None else tensor.copy_(self.ev.param(op.label.data))
            self.states.append(tensor)
        elif isinstance(op, plan.BufferOp):
            item = self.ev.dtype(kind).itemsize
            tensor = self._over(self.arena.untyped_storage(), kind, self.offsets[op] * SCALE // item)
        else:
            tensor = self._like(kind)
        self.values[op.result] = self.storages[op.result] = tensor

    def _like(self, kind: Any) -> Any:
        """A fresh tensor of a type, with its strides."""
        size = self.ev.extent(span_bytes(kind)) * SCALE
        return self._over(self._fresh(size).untyped_storage(), kind, 0)

    def _over(self, storage: Any, kind: Any, offset: int) -> Any:
        torch = self.ev.torch
        strides = tuple(self.ev.extent(s) for s in types.strides(kind))
        empty = torch.empty(0, dtype=self.ev.dtype(kind))
        return empty.set_(storage, offset, self.ev.shape(kind), strides)

    def _launch(self, op: plan.LaunchOp) -> None:
        if control.is_control(op.callee.data):
            self._control(op)
            return
        if is_kernel(op.callee.data):
            self._kernel(op)
            return
        args, kwargs = op.arguments
        inputs = [self.values[v] for v in op.inputs]
        results = self.ev.call(op.callee.data, (args, kwargs), inputs)
        self._take(op, results)

    def _kernel(self, op: plan.LaunchOp) -> None:
        """A launch of machine code, by its meaning. Without programs nothing runs."""
        name = kernel_name(op.callee.data)
        meaning = self.kernels.get(name)
        if meaning is None:
            raise error("FORGE-I003", f"nothing says what kernel '{name}' computes", location=location_of(op))
        args, kwargs = op.arguments
        tensors = [self.values[op.inputs[arg.id]] for arg in args if isinstance(arg, Reg)]
        grid = dict(kwargs)[GRID]
        assert isinstance(grid, tuple)
        if all(self._number(extent) for extent in grid):
            meaning(tensors, [self._number(arg) for arg in args if not isinstance(arg, Reg)])

    def _number(self, extent: Any) -> int:
        return self.ev.extent(extent)

    def _control(self, op: plan.LaunchOp) -> None:
        """A launch that calls other entries."""
        registers = list(op.inputs)

        def filled(arg: Any) -> Any:
            if isinstance(arg, Reg):
                return self.values[registers[arg.id]]
            if isinstance(arg, tuple):
                return [filled(item) for item in arg]
            return self.ev.extent(arg) if isinstance(arg, SymExpr) else arg

        launch = Launch(op.callee.data, op.arguments[0])
        run = control.callable_of(launch, self._updated, self._call, location_of(op), torch_library())
        results = run(*map(filled, op.arguments[0]))
        names = () if op.defines is None else op.defines.arguments[0]
        told = {str(name): int(tensor) for name, tensor in zip(names, results, strict=False) if name is not None}
        self.ev.symbols = {**self.ev.symbols, **told}
        self._take(op, results)

    def _take(self, op: plan.LaunchOp, results: Sequence[Any]) -> None:
        """The results as registers; an extent that nothing has told before has the value that their shapes give it."""
        shapes = [zip(types.shape(v), r.shape, strict=True) for v, r in zip(op.outputs, results, strict=False)]
        told = {str(e): size for pairs in shapes for e, size in pairs if isinstance(e, SymExpr)}
        self.ev.symbols = {**{name: size for name, size in told.items() if name.isidentifier()}, **self.ev.symbols}
        for value, result in zip(op.outputs, results, strict=False):
            tensor = self._like(types.tensor_type(value))
            tensor.copy_(result)
            self.values[value] = self.storages[value] = tensor

    def _entry(self, name: str) -> plan.EntryOp:
        module = self.entry.parent_op()
        assert isinstance(module, ModuleOp)
        return next(op for op in module.ops if isinstance(op, plan.EntryOp) and op.sym_name.data == name)

    def _updated(self, name: str) -> list[int]:
        ops = self._entry(name).body.block.ops
        return [op.index.data - 1 for op in ops if isinstance(op, plan.InputOp) and op.inout is not None]

    def _call(self, name: str, tensors: Sequence[Any]) -> list[Any]:
        """Run another entry; what it updates is copied back."""
        run = _Execution(self._entry(name), tensors, self.params, self.ev.float64, self.ev.symbols, self.kernels)
        results = run.run()
        inout = [op.index.data for op in run.entry.body.block.ops if isinstance(op, plan.InputOp) and op.inout]
        for index, state in zip(inout, run.states, strict=True):
            tensors[index].copy_(state)
        return results[: len(results) - len(run.states)]
