"""The tensors that an artifact's IR names, out of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from forgec.ir import types
from forgec.ir.ops.module import ParamOp
from forgec.ir.params import ParamValues
from forgec.runtime.plan import Param, Plan, State, TensorSpec
from forgec.runtime.weights import MappedWeights


class StoredParams(Mapping[str, Any]):
    """Tensors by name, mapped from the file. One that was computed when the program was compiled is stored whole; it is
    computed again only if it is not.
    """

    def __init__(self, module: ModuleOp, plan: Plan, weights: MappedWeights) -> None:
        registers = [register for entry in plan.entries for register in entry.registers]
        self._specs = {r.name: r.spec for r in registers if isinstance(r, (Param, State))}
        for op in module.ops:
            if isinstance(op, ParamOp):
                kind = op.type
                spec = TensorSpec(types.dtype(kind), types.shape(kind), types.strides(kind))
                self._specs.setdefault(op.sym_name.data, spec)
        self._weights = weights
        self._stored = {*weights.names, *weights.aliases}
        self._computed = ParamValues(module, self)

    def __getitem__(self, name: str) -> Any:
        if name in self._stored:
            return self._weights.tensor(name, self._specs[name], "cpu")
        if name in self._computed.computed:
            return self._computed[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored | self._computed.computed.keys())

    def __len__(self) -> int:
        return len(self._stored | self._computed.computed.keys())
