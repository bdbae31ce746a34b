"""What a module costs by its ops' own formulas: floating-point operations, bytes moved, launches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Operation
from xdsl.traits import SymbolTable

from forgec.diagnostics import error
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import AtenOp, ConstantOp, ParamRefOp, SymbolOp
from forgec.ir.ops.shape import is_free
from forgec.runtime.symbolic import Extent, evaluate, free_symbols


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


@dataclass
class ModuleCost:
    """The total, and its parts by the name of the op (an ATen call's is its operator: ``aten::topk``)."""

    total: Cost = field(default_factory=Cost)
    by_op: dict[str, Cost] = field(default_factory=dict)

    def add(self, name: str, cost: Cost) -> None:
        """Count one more op."""
        self.total += cost
        self.by_op[name] = self.by_op.get(name, Cost()) + cost


def module_cost(module: ModuleOp, *, function: str = "forward", symbols: Mapping[str, int] | None = None) -> ModuleCost:
    """The cost of one call of a function, the functions that it calls included.

    A symbol that ``symbols`` leaves out has its declared minimum, but 1 at least. Views, parameters, constants and
    state cost nothing.
    """
    callee = SymbolTable.lookup_symbol(module, function)
    if not isinstance(callee, FuncOp):
        raise error("FORGE-R001", f"the module has no function {function}")
    values = {**_defaults(module), **(symbols or {})}
    result = ModuleCost()
    _add_function(module, callee, values, result)
    return result


def op_cost(op: Operation, symbols: Mapping[str, int]) -> Cost:
    """The cost of one op; undeclared symbols count as 1."""
    if not isinstance(op, ForgeOp):
        return Cost(count=1)
    launches = 1 if launches_kernel(op) else 0
    return Cost(1, _value(op.flops(), symbols), _value(op.bytes_moved(), symbols), launches)


def launches_kernel(op: Operation) -> bool:
    """True if the op does work at run time when it stands alone: it is no view, parameter, constant or piece of
    state.
    """
    return isinstance(op, ForgeOp) and not is_free(op) and not isinstance(op, (ParamRefOp, ConstantOp))


def _add_function(module: ModuleOp, function: FuncOp, symbols: Mapping[str, int], result: ModuleCost) -> None:
    for op in function.body.block.ops:
        if isinstance(op, CallOp):
            callee = SymbolTable.lookup_symbol(module, op.callee)
            if isinstance(callee, FuncOp) and not callee.is_declaration:
                _add_function(module, callee, symbols, result)
        elif op.results:
            name = op.callee.data if isinstance(op, AtenOp) else op.name
            result.add(name, op_cost(op, symbols))


def _defaults(module: ModuleOp) -> dict[str, int]:
    values: dict[str, int] = {}
    for op in module.ops:
        if isinstance(op, SymbolOp):
            low = op.minimum.data
            values[op.sym_name.data] = max(low, 1) if isinstance(low, int) else 1
    return values


def _value(extent: Extent, symbols: Mapping[str, int]) -> int:
    return evaluate(extent, {name: symbols.get(name, 1) for name in free_symbols(extent)})
