"""Inputs for IR text that comes without any: random, but the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.entry import argument_info
from forgec.ir.evaluator import Evaluator
from forgec.ir.extents import bind
from forgec.ir.interpreter import held_type
from forgec.ir.ops.module import ConstraintOp, SymbolOp
from forgec.runtime.symbolic import SymExpr, free_symbols
from forgec.verify.evaluation import Data
from forgec.verify.slices import parameters

_EXTENTS = (5, 7, 4, 6, 3, 8, 2, 1)
"""Values that symbols get, as far as their ranges allow: small, and at first different."""


def random_data(module: ModuleOp, function: FuncOp, seed: int, given: Mapping[str, Any] | None = None) -> Data:
    """Normally distributed floating-point numbers; integers and booleans that are 0 or 1, so that indices are valid.

    ``given`` are tensors by the names of arguments (``x``) and parameters (``@w``), which also tell symbols. Raises
    FORGE-R001 for other names.
    """
    given = given or {}
    names = [argument_info(function, position).name for position in range(len(function.body.block.args))]
    known_names = {*names, *(f"@{op.sym_name.data}" for op in parameters(module))}
    unknown = next((name for name in given if name not in known_names), None)
    if unknown is not None:
        takes = ", ".join(sorted(known_names))
        raise error(
            "FORGE-R001", f"there is no argument {unknown}", notes=(f"@{function.sym_name.data} takes {takes}",)
        )
    kinds = [held_type(argument.type) for argument in function.body.block.args]
    known = [(types.shape(kind), tuple(given[n].shape)) for n, kind in zip(names, kinds, strict=True) if n in given]
    told = bind([shape for shape, _ in known], [actual for _, actual in known]) if known else {}
    symbols = {**_extents(module, kinds), **told}
    generator = torch.Generator().manual_seed(seed)
    ev = Evaluator(symbols)
    inputs = [
        given[name] if name in given else _random(ev, kind, generator) for name, kind in zip(names, kinds, strict=True)
    ]
    params: dict[str, Any] = {}
    for op in parameters(module):
        name = op.sym_name.data
        params[name] = given[f"@{name}"] if f"@{name}" in given else _random(ev, op.type, generator)
    return Data(inputs, params, symbols)


def _extents(module: ModuleOp, kinds: Sequence[Attribute]) -> dict[str, int]:
    """Values for the symbols: within their ranges, and fulfilling the declared relations if small ones do."""
    declared = {op.sym_name.data: op for op in module.ops if isinstance(op, SymbolOp)}
    extents = [extent for kind in kinds for extent in types.shape(kind) if isinstance(extent, SymExpr)]
    names = list(dict.fromkeys([*declared, *sorted(name for extent in extents for name in free_symbols(extent))]))
    relations = [op.constraint for op in module.ops if isinstance(op, ConstraintOp)]
    values: dict[str, int] = {}
    for shift in range(len(_EXTENTS)):
        for position, name in enumerate(names):
            order = [*_EXTENTS[(position + shift) % len(_EXTENTS) :], *_EXTENTS]
            op = declared.get(name)
            minimum = 1 if op is None or not isinstance(op.minimum.data, int) else op.minimum.data
            values[name] = next((v for v in order if op is None or op.admits(v)), minimum)
        if all(not relation.symbols <= values.keys() or relation.holds(values) for relation in relations):
            break
    return values


def _random(ev: Evaluator, kind: Attribute, generator: torch.Generator) -> Any:
    shape, dtype = ev.shape(kind), ev.dtype(kind)
    if dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=torch.complex64).to(dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)
