"""What a module costs by its ops' own formulas: floating-point operations, bytes moved, launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Operation

from forgec.diagnostics import error
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp, SymbolOp
from forgec.ir.ops.shape import is_free
from forgec.runtime.symbolic import Extent, evaluate


@dataclass(frozen=True)
class Cost:
    """``flops`` and ``bytes_moved`` of ``count`` ops, of which ``launches`` start a kernel when each runs alone."""

    count: int = 0
    flops: int = 0
    bytes_moved: int = 0
    launches: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.count + other.count,
            self.flops + other.flops,
            self.bytes_moved + other.bytes_moved,
            self.launches + other.launches,
        )

    def times(self, count: int) -> Cost:
        """The cost of ``count`` such ops."""
        return Cost(self.count * count, self.flops * count, self.bytes_moved * count, self.launches * count)


@dataclass
class ModuleCost:
    """The total, and its parts by the name of the op (an ATen call's is its operator: ``aten::topk``)."""

    total: Cost = field(default_factory=Cost)
    by_op: dict[str, Cost] = field(default_factory=dict)

    def add(self, name: str, cost: Cost) -> None:
        """Count one more op."""
        self.total += cost
        self.by_op[name] = self.by_op.get(name, Cost()) + cost


def module_cost(
    module: ModuleOp, *, function: str | None = None, symbols: Mapping[str, int] | None = None
) -> ModuleCost:
    """The cost of one call of a function, or of each public one, the functions that they call included.

    A symbol that ``symbols`` leaves out has its declared minimum, but 1 at least. Views, parameters, constants and
    state cost nothing. Raises FORGE-R001 for a function that the module does not have.
    """
    values = {**_defaults(module), **(symbols or {})}
    result = ModuleCost()
    for op, times in counted_ops(module, function):
        if op.results and not isinstance(op, CallOp):
            name = op.callee.data if isinstance(op, AtenOp) else op.name
            result.add(name, op_cost(op, values).times(times))
    return result


def program_cost(module: ModuleOp, symbols: Mapping[str, int] | None = None) -> Cost | None:
    """The cost of one call of each public function, for the extents of reports unless ``symbols`` gives others; None
    for a module without such functions (a plan).
    """
    if not any(isinstance(op, FuncOp) and is_public(op) for op in module.ops):
        return None
    return module_cost(module, symbols=default_bindings(module) if symbols is None else symbols).total


def gain(before: int, after: int) -> float:
    """How many times less is left: the fusion gain ratio, where bytes moved are counted. 1 where nothing changed, and
    where nothing is left to divide by.
    """
    return round(before / after, 4) if after else 1.0


def op_cost(op: Operation, symbols: Mapping[str, int]) -> Cost:
    """The cost of one op; undeclared symbols count as 1."""
    if not isinstance(op, ForgeOp):
        return Cost(count=1)
    launches = 1 if launches_kernel(op) else 0
    return Cost(1, value_of(op.flops(), symbols), value_of(op.bytes_moved(), symbols), launches)


def launches_kernel(op: Operation) -> bool:
    """True if the op does work at run time when it stands alone: it is no view, parameter, constant or piece of
    state.
    """
    return isinstance(op, ForgeOp) and not is_free(op) and not isinstance(op, (ParamRefOp, ConstantOp))


def default_bindings(module: ModuleOp) -> dict[str, int]:
    """Extents for which a dynamic module's costs are reported: each symbol's maximum, or 1024 where it has none."""
    result: dict[str, int] = {}
    for op in module.ops:
        if isinstance(op, SymbolOp):
            high = None if op.maximum is None else op.maximum.data
            result[op.sym_name.data] = high if isinstance(high, int) else 1024
    return result


def value_of(extent: Extent, symbols: Mapping[str, int]) -> int:
    """The value of an extent; undeclared symbols count as 1."""
    return extent if isinstance(extent, int) else evaluate(extent, defaultdict(lambda: 1, symbols))


def counted_ops(module: ModuleOp, function: str | None = None) -> Iterator[tuple[Operation, int]]:
    """The ops that one call of a function (or of each public one) meets, each with how often.

    Those of a function that is called n times (an outlined layer) are met n times. The regions of control flow count
    once: a loop as one turn, an ``if`` with both its branches. What is inside a kernel, and what is computed while
    compiling, is not met.
    """
    for callee, times in call_counts(module, function).items():
        for op in ops_of(callee):
            yield op, times


def call_counts(module: ModuleOp, function: str | None = None) -> dict[FuncOp, int]:
    """How often each function runs when one function (or each public one) is called once; a function before those
    that it calls.
    """
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    if function is not None and function not in functions:
        raise error("FORGE-R001", f"the module has no function {function}")
    roots = [f for f in functions.values() if is_public(f)] if function is None else [functions[function]]
    calls: dict[FuncOp, dict[FuncOp, int]] = {}
    finished: list[FuncOp] = []

    def visit(caller: FuncOp) -> None:
        calls[caller] = {}
        for op in ops_of(caller):
            callee = functions.get(op.callee.string_value()) if isinstance(op, CallOp) else None
            if callee is not None:
                calls[caller][callee] = calls[caller].get(callee, 0) + 1
                if callee not in calls:
                    visit(callee)
        finished.append(caller)

    for root in roots:
        if root not in calls:
            visit(root)
    counts = {f: int(f in roots) for f in reversed(finished)}
    for caller in counts:
        for callee, times in calls[caller].items():
            counts[callee] += times * counts[caller]
    return counts


def is_public(function: FuncOp) -> bool:
    """True for a function that callers of the program see."""
    return function.sym_visibility is None or function.sym_visibility.data != "private"


def ops_of(function: FuncOp) -> Iterator[Operation]:
    """The ops of a function, those in its control flow included; a kernel is one op."""
    pending: list[Iterator[Operation]] = [iter([op for block in function.body.blocks for op in block.ops])]
    while pending:
        op = next(pending[-1], None)
        if op is None:
            pending.pop()
            continue
        yield op
        if op.regions and not isinstance(op, FusedOp):
            pending.append(iter([inner for region in op.regions for block in region.blocks for inner in block.ops]))


def _defaults(module: ModuleOp) -> dict[str, int]:
    return {op.sym_name.data: max(op.bounds[0], 1) for op in module.ops if isinstance(op, SymbolOp)}
