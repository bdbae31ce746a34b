"""The tensors of a module's parameters, those included that are computed from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from forgec.ir import types
from forgec.ir.blocks import evaluate_block
from forgec.ir.evaluator import Evaluator
from forgec.ir.ops.module import ParamOp
from forgec.runtime.extents import static


class ParamValues(Mapping[str, Any]):
    """Tensors by name. One that a ``forge.param`` computes is computed when it is asked for, each time: only what the
    caller keeps stays in memory.
    """

    def __init__(self, module: ModuleOp, tensors: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.computed = {op.sym_name.data: op for op in module.ops if isinstance(op, ParamOp) and op.init is not None}

    def __getitem__(self, name: str) -> Any:
        op = self.computed.get(name)
        if op is None or op.init is None:
            return self.tensors[name]
        ev = Evaluator(params=self)
        with ev.torch.no_grad():
            (value,) = evaluate_block(op.init.block, ev)
            shape, strides = static(types.shape(op.type)), static(types.strides(op.type))
            if value.stride() == strides:
                return value
            return ev.torch.empty_strided(shape, strides, dtype=value.dtype, device=value.device).copy_(value)

    def __contains__(self, name: object) -> bool:
        """Without computing the tensor, as ``Mapping`` would: tensors that are computed of others ask for those."""
        return name in self.tensors or name in self.computed

    def __iter__(self) -> Iterator[str]:
        return iter({**self.tensors, **self.computed})

    def __len__(self) -> int:
        return len({**self.tensors, **self.computed})

    def source(self, name: str) -> Any:
        """A tensor of the model, or a function that computes the tensor."""
        return self._computing(name) if name in self.computed else self.tensors[name]

    def _computing(self, name: str) -> Callable[[], Any]:
        return lambda: self[name]
