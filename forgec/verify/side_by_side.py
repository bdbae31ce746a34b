"""Runs a module in its own precision and in float64 at once, and measures the error at each op.

Each value is held twice: as the program computes it, and as float64 arithmetic computes it from the same inputs.
At an op with floating-point results there are two errors:

- *added*: the op in its own precision against the op in float64, on the operands that the program has. It is this op's
  rounding alone, however wrong its operands are;
- *total*: the program's value against the float64 value, all that has come together up to here.

Decisions are the program's: where a comparison, a top-k or an argmax would come out otherwise in float64, the float64
side goes on with the program's integers and booleans, and the difference is counted. So both sides stay comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Operation
from xdsl.traits import SymbolTable

from forgec.ir.evaluator import Evaluator
from forgec.ir.interpreter import Interpretation
from forgec.ir.ops.control import ControlOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ParamRefOp, StateReadOp, StateWriteOp
from forgec.ir.params import ParamValues
from forgec.verify.tolerance import Deviation, deviation


@dataclass(frozen=True)
class OpError:
    """The errors of one result of an op at one execution. ``decisions`` counts integers and booleans that float64
    would have made otherwise; ``followed`` is False where the op has no result in float64 to compare with.
    """

    op: Operation
    added: Deviation = field(default_factory=Deviation)
    total: Deviation = field(default_factory=Deviation)
    decisions: int = 0
    followed: bool = True


@dataclass(frozen=True, slots=True)
class _Both:
    """A tensor of the program, and its float64 counterpart where that is another number."""

    native: Any
    exact: Any = None

    def wide(self, ev: Evaluator) -> Any:
        return ev.widen(self.native) if self.exact is None else self.exact


class SideBySide(Interpretation):
    """An interpretation whose tensors are pairs; ``record`` gets the errors of each op."""

    def __init__(self, module: ModuleOp, params: Mapping[str, Any], record: Callable[[OpError], None]) -> None:
        super().__init__(module, Evaluator({}, params))
        self.wide = Evaluator({}, params, float64=True)
        self.record = record

    def run(self, function: FuncOp, inputs: Sequence[Any], symbols: Mapping[str, int]) -> list[tuple[Any, Any]]:
        """The results of a function: the program's, and the float64 ones."""
        with self.ev.torch.no_grad():
            found = self.start(function, [_Both(tensor.detach()) for tensor in inputs], symbols)
            return [(both.native, both.wide(self.wide)) for both in found]

    def start(self, function: FuncOp, inputs: Sequence[Any], symbols: Mapping[str, int]) -> list[Any]:
        natives = [both.native for both in inputs]
        self.check_inputs(function, natives, symbols)
        return self.call(function, inputs)

    def decision(self, value: Any) -> Any:
        return value.native if isinstance(value, _Both) else value

    def execute(self, op: Operation, operands: list[Any]) -> list[Any]:
        match op:
            case CallOp():
                callee = SymbolTable.lookup_symbol(self.module, op.callee)
                if isinstance(callee, FuncOp):
                    return self.call(callee, operands)
            case StateReadOp():
                return operands
            case StateWriteOp():
                return operands[1:]
            case FusedOp():
                return self.block(op.body.block, operands, {})
        natives = super().execute(op, [self.decision(operand) for operand in operands])
        if isinstance(op, (ControlOp, ParamRefOp)):
            return [_Both(n) if isinstance(n, self.ev.torch.Tensor) else n for n in natives]
        if not any(map(_is_float, natives)) and not any(_is_float(self.decision(v)) for v in operands):
            return [_Both(native) for native in natives]
        return self._measured(op, operands, natives)

    def _measured(self, op: Operation, operands: list[Any], natives: list[Any]) -> list[_Both]:
        self.wide.symbols = self.ev.symbols
        local = self._in_float64(op, [self.wide.widen(both.native) for both in operands])
        if all(both.exact is None for both in operands):
            true = local
        else:
            true = self._in_float64(op, [both.wide(self.wide) for both in operands])
        results: list[_Both] = []
        for index, native in enumerate(natives):
            near = None if local is None else local[index]
            far = None if true is None else true[index]
            if near is None or far is None or near.shape != native.shape or far.shape != native.shape:
                self.record(OpError(op, followed=False))
                results.append(_Both(native))
            elif _is_float(native):
                added = deviation(near, native)
                total = added if far is near else deviation(far, native)
                self.record(OpError(op, added, total))
                results.append(_Both(native) if total.absolute == 0.0 else _Both(native, far))
            else:
                self.record(OpError(op, decisions=int((far.to(native.dtype) != native).sum())))
                results.append(_Both(native))
        return results

    def _in_float64(self, op: Operation, operands: list[Any]) -> list[Any] | None:
        """What the op yields in float64, None where it cannot be computed there."""
        try:
            found = op.reference(self.wide, *operands)  # type: ignore[attr-defined] - what has none has raised before
        except Exception:  # torch's kernels that have no float64 raise of many kinds
            return None
        return list(found) if isinstance(found, (tuple, list)) else [found]


def in_both(
    module: ModuleOp, function: FuncOp, inputs: Sequence[Any], params: Mapping[str, Any], symbols: Mapping[str, int]
) -> tuple[list[Any], list[Any]]:
    """What a function yields in the program's precision, and in float64 with the program's decisions."""
    run = SideBySide(module, ParamValues(module, params), lambda error: None)
    found = run.run(function, inputs, symbols)
    return [native for native, _ in found], [wide for _, wide in found]


def _is_float(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and (value.is_floating_point() or value.is_complex())
