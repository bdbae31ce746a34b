"""The values of every block of a module at its first execution: what a slice of the block takes as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from forgec.ir.evaluator import Evaluator
from forgec.ir.interpreter import Interpretation
from forgec.ir.ops.fused import FusedOp
from forgec.ir.params import ParamValues


class Recording(Interpretation):
    """An interpretation that keeps all values, those inside of kernels, branches and loops too.

    ``values`` has those of first executions, ``symbols`` all extents that the run has told.
    """

    def __init__(self, module: ModuleOp, params: Mapping[str, Any]) -> None:
        super().__init__(module, Evaluator({}, ParamValues(module, params)), self._keep)
        self.values: dict[SSAValue, Any] = {}

    def run(self, function: FuncOp, inputs: Sequence[Any], symbols: Mapping[str, int]) -> list[Any]:
        """Execute a function and record."""
        with self.ev.torch.no_grad():
            return self.start(function, [tensor.detach() for tensor in inputs], symbols)

    @property
    def symbols(self) -> dict[str, int]:
        return dict(self.ev.symbols)

    def block(self, block: Block, inputs: Sequence[Any], values: dict[SSAValue, Any]) -> list[Any]:
        for argument, value in zip(block.args, inputs, strict=True):
            self.values.setdefault(argument, value)
        return super().block(block, inputs, values)

    def execute(self, op: Operation, operands: list[Any]) -> list[Any]:
        if isinstance(op, FusedOp):
            return self.block(op.body.block, operands, {})
        return super().execute(op, operands)

    def _keep(self, op: Operation, results: Sequence[Any]) -> None:
        for result, value in zip(op.results, results, strict=True):
            self.values.setdefault(result, value)
