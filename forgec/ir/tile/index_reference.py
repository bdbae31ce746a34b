"""The reference meaning of ``tile.index``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from forgec.ir.tile.memory_model import fault
from forgec.runtime.symbolic import Extent, SymExpr


def evaluate_index(torch: Any, expression: Extent, values: Mapping[str, Any]) -> Any:
    """The value of an expression whose symbols are numbers or tensors."""
    if not isinstance(expression, SymExpr):
        return expression
    total: Any = 0
    for monomial, coefficient in expression.terms:
        product: Any = coefficient
        for atom in monomial:
            if atom.op == "symbol":
                product = product * values[atom.text]
                continue
            arguments = [torch.as_tensor(evaluate_index(torch, argument, values)) for argument in atom.args]
            if atom.op in ("floordiv", "mod"):
                if (arguments[1] == 0).any():
                    raise fault(f"{atom.text} divides by zero")
                mode = torch.floor_divide if atom.op == "floordiv" else torch.remainder
                product = product * mode(*arguments)
            else:
                product = product * reduce(torch.maximum if atom.op == "max" else torch.minimum, arguments)
        total = total + product
    return total
