"""The smallest part of a module on which a step of compilation still changes the result.

The parts are slices of one block: the shortest prefix of it, then one output, then fewer and fewer ops (what is left
out becomes an argument, with the value that it had), then, inside a called function, a branch or a kernel, the same
again. Every slice is tried: it is built as a function of its own, and executed before and after the step on recorded
values. So nothing needs to be known of the step, and what is reported has been seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from forgec.diagnostics import ForgeError
from forgec.verify.evaluation import Data, Step, differences
from forgec.verify.slices import NAME, Slice, data_of, inner_blocks, prefix, whole
from forgec.verify.tolerance import Deviation, Tolerance

MAX_TRIALS = 600
"""Slices that are tried at most; what is smallest then is reported."""


@dataclass(frozen=True)
class Reduced:
    """A slice on which the step changes the result (``deviation``), or fails where it should not (``failure``)."""

    part: Slice
    output: SSAValue | None
    deviation: Deviation

    @property
    def op(self) -> Operation:
        """The op whose result is wrong after the step."""
        owner = None if self.output is None else self.output.owner
        return owner if isinstance(owner, Operation) else self.part.ops[-1]


class Reducer:
    """Reduces modules with respect to one step. ``fails``: after the step there is no result at all."""

    def __init__(
        self,
        source: ModuleOp,
        step: Step,
        values: Mapping[SSAValue, Any],
        params: Mapping[str, Any],
        symbols: Mapping[str, int],
        tolerance: Tolerance,
        *,
        float64: bool = False,
        fails: bool = False,
    ) -> None:
        self.source = source
        self.step = step
        self.values = values
        self.params = params
        self.symbols = symbols
        self.tolerance = tolerance
        self.float64 = float64
        self.fails = fails
        self.trials = 0

    def reduce(self, block: Block) -> Reduced | None:
        """The smallest slice of a block, or of a block inside it; None if the step keeps what the block computes."""
        if block.first_op is None or block.first_op is block.last_op:
            return None
        found = self.tried(whole(block))
        if found is None:
            return None
        found = self._shortest_prefix(block, found)
        found = self._one_output(found)
        found = self._fewest_ops(found)
        found = self._earlier_output(found)
        for inner in inner_blocks(found.part, self.source):
            deeper = self.reduce(inner) if self._is_recorded(inner) else None
            if deeper is not None:
                return deeper
        return found

    def tried(self, part: Slice | None) -> Reduced | None:
        """The slice, if the step changes what it computes."""
        part = None if part is None else part.closed()
        if part is None or not part.ops or not part.outputs or self.trials >= MAX_TRIALS:
            return None
        if any(value not in self.values for value in part.inputs):
            return None
        self.trials += 1
        data = Data(data_of(part, self.values), self.params, self.symbols)
        try:
            module = part.module(self.source)
        except Exception:  # whatever building it raises: a slice that is no program by itself is not one to report
            return None
        applied: ModuleOp | None = None
        failure: Exception | None = None
        try:
            applied = self.step.made_of(module)
        except Exception as reason:  # a pass may be wrong in any way; that is what is looked for
            failure = reason
        if applied is None and failure is None:
            return None
        try:
            expected = self.step.before(module, data, NAME, float64=self.float64)
        except Exception:  # whatever the slice raises before the step is not the step's
            return None
        found: list[Any] = []
        try:
            if applied is not None:
                found = self.step.computed(module, applied, data, NAME, float64=self.float64)
        except Exception as reason:  # the step's own failure, of whatever kind
            failure = reason
        if failure is not None and self.fails:
            return Reduced(part, None, Deviation(problem=_reason(failure)))
        if failure is not None or self.fails:
            return None
        wrong = differences(expected, found, self.tolerance)
        if not wrong:
            return None
        index, error = next(iter(wrong.items()))
        return Reduced(part, part.returned[index] if index < len(part.returned) else None, error)

    def _is_recorded(self, block: Block) -> bool:
        return all(argument in self.values for argument in block.args)

    def _shortest_prefix(self, block: Block, found: Reduced) -> Reduced:
        low, high = 0, len(found.part.ops)
        while high - low > 1:
            middle = (low + high) // 2
            shorter = self.tried(prefix(block, middle))
            if shorter is None:
                low = middle
            else:
                high, found = middle, shorter
        return found

    def _one_output(self, found: Reduced) -> Reduced:
        outputs = found.part.outputs
        first = [found.output] if found.output in outputs else []
        for value in dict.fromkeys((*first, *reversed(outputs))):
            smaller = self.tried(Slice(found.part.ops, (value,)).needed()) if value is not None else None
            if smaller is not None:
                return smaller
        kept = list(outputs)
        for value in outputs:
            rest = tuple(other for other in kept if other is not value)
            smaller = self.tried(Slice(found.part.ops, rest).needed())
            if smaller is not None:
                found, kept = smaller, list(rest)
        return found

    def _fewest_ops(self, found: Reduced) -> Reduced:
        """Leave out halves, quarters, … and single ops, until no op can be left out."""
        size = max(len(found.part.ops) // 2, 1)
        while True:
            changed, first = False, 0
            while first < len(found.part.ops):
                smaller = self.tried(_without(found.part, first, size))
                if smaller is not None and len(smaller.part.ops) < len(found.part.ops):
                    found, changed = smaller, True
                else:
                    first += size
            if size == 1 and (not changed or self.trials >= MAX_TRIALS):
                return found
            size = max(size // 2, 1)

    def _earlier_output(self, found: Reduced) -> Reduced:
        """The last op left out too, where what it takes is wrong already."""
        while True:
            made = {result for op in found.part.ops[:-1] for result in op.results}
            outputs = tuple(v for v in dict.fromkeys(found.part.ops[-1].operands) if v in made)
            earlier = self.tried(Slice(found.part.ops[:-1], outputs).needed()) if outputs else None
            if earlier is None:
                return found
            found = self._fewest_ops(self._one_output(earlier))


def _without(part: Slice, first: int, count: int) -> Slice | None:
    """The slice with some ops left out, and what then is of no use; outputs are kept."""
    left_out = {result for op in part.ops[first : first + count] for result in op.results}
    if left_out.intersection(part.outputs):
        return None
    return Slice(part.ops[:first] + part.ops[first + count :], part.outputs).needed()


def _reason(failure: Exception) -> str:
    text = failure.diagnostics[0].message if isinstance(failure, ForgeError) else str(failure)
    return next(iter(text.splitlines()), type(failure).__name__)
