"""Functions whose extents only their run tells become a sequence of calls."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import is_side_effect_free

from forgec.ir.attributes import StateType
from forgec.ir.entry import EntryInfo
from forgec.ir.ops.base import producer
from forgec.ir.ops.control import AssertOp, ItemOp
from forgec.ir.ops.module import StateReadOp, StateWriteOp
from forgec.ir.symbols import defined_symbols, free_symbols_in, mentioned_symbols, symbols_of
from forgec.passes.outlining import (
    REPEATED,
    call,
    free_values,
    is_repeated,
    needed_symbols,
    outline,
)
from forgec.passes.rewriting import functions


@dataclass(frozen=True)
class CutSegments(ModulePass):
    """Cut a function where an extent becomes known that later ops need, into private functions called in turn.

    Before::

        func.func @forward(%x : tensor<9xf32>) -> tensor<?x1xi64, #forge.tensor<[u0]>> {
          %0 = forge.aten "aten::nonzero"(%x) defines [u0] : …
          %1 = forge.neg %0 : …
          func.return %1 : …
        }

    After::

        func.func @forward(%x : tensor<9xf32>) -> tensor<?x1xi64, #forge.tensor<[u0]>> {
          %0 = func.call @forward.segment0(%x) : …
          %1 = func.call @forward.segment1(%0) : …
          func.return %1 : …
        }

    So each segment is an ordinary program: when it is called all of its extents have values. An op belongs to the
    first segment in which it can be; ops with effects keep their order. Requires: regions are calls
    (``outline-control-flow``).

    Order: ``lower-to-plan`` runs it last before it lowers.
    """

    name = "cut-segments"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in list(functions(op)):
            _Cutter(op, function).run()


class _Cutter:
    def __init__(self, module: ModuleOp, function: FuncOp) -> None:
        self.module = module
        self.function = function
        self.functions = {f.sym_name.data: f for f in functions(module)}
        self.ops = [op for op in function.body.block.ops if not isinstance(op, ReturnOp)]
        self.given = {name for argument in function.body.block.args for name in symbols_of(argument)}
        leaves = EntryInfo.of(function).outputs
        self.returned = set() if leaves is None else free_symbols_in(leaves)
        """Symbols whose values are among the results."""
        self.level: dict[Operation, int] = {}
        self.told: dict[str, int] = {}
        """Symbols that ops of the function define → the segment from which on they have values."""
        self.last_need: dict[str, float] = dict.fromkeys(self.returned, inf)
        """Symbols → the last segment that needs their values."""

    def run(self) -> None:
        if not any(self._tells(op) for op in self.ops):
            return
        self._repeat_conditions()
        self._find_levels()
        count = 1 + max(self.level.values(), default=0)
        if count == 1:
            return
        place: Operation = self.function
        segments: list[list[Operation]] = [[] for _ in range(count)]
        for op in self.ops:
            for name in self._needs(op):
                self.last_need[name] = max(self.last_need.get(name, 0), self.level[op])
            if not isinstance(op, REPEATED):
                segments[self.level[op]].append(op)
        for number, ops in enumerate(segments):
            if ops:
                function = self._segment(ops, number)
                self.module.body.block.insert_op_after(function, place)
                place = function
        block = self.function.body.block
        for op in reversed(list(block.ops)):
            if isinstance(op, REPEATED) and op.results[0].first_use is None:
                block.erase_op(op)

    def _tells(self, op: Operation) -> set[str]:
        """The symbols that have values after an op and had none before."""
        found = {name for inner in op.walk() for name in defined_symbols(inner)} if not op.regions else set()
        if isinstance(op, CallOp) or op.regions:
            found |= mentioned_symbols(op) - self._needs(op) - self.given
        return found

    def _needs(self, op: Operation) -> set[str]:
        """The symbols that must have values before an op runs."""
        return needed_symbols(op, self.functions)

    def _repeat_conditions(self) -> None:
        """Conditions (``i1``) are no arguments of functions: each op that takes one gets its own ``forge.item``."""
        block = self.function.body.block
        for op in [op for op in self.ops if _is_condition(op)]:
            for use in list(op.results[0].uses):
                copied = op.clone()
                block.insert_op_before(copied, self._user(use.operation))
                use.operation.operands[use.index] = copied.results[0]
            block.erase_op(op)
        self.ops = [op for op in block.ops if not isinstance(op, ReturnOp)]

    def _find_levels(self) -> None:
        effects = 0
        reads: dict[SSAValue, int] = {}
        """The latest segment in which a version of state is read."""
        for op in self.ops:
            if _is_condition(op):
                continue  # goes with its user
            taken = [producer(value) for value in free_values([op])]
            conditions = [source for source in taken if source is not None and _is_condition(source)]
            sources = [*taken, *(producer(condition.operands[0]) for condition in conditions)]
            level = max((self.level[s] for s in sources if s is not None and s in self.level), default=0)
            level = max([level, *(self.told[name] for name in self._needs(op) if name in self.told)])
            told = self._tells(op)
            if not told and not isinstance(op, StateReadOp) and not is_side_effect_free(op):
                effects = level = max(level, effects)
            if isinstance(op, StateWriteOp):
                effects = level = max(level, reads.get(op.state, 0))
            elif isinstance(op, StateReadOp):
                reads[op.state] = max(level, reads.get(op.state, 0))
            self.level.update(dict.fromkeys([op, *conditions], level))
            if isinstance(op, AssertOp):  # holds before anything relies on it
                for name in self._symbols_behind(op.condition):
                    self.told[name] = max(self.told.get(name, 0), level + 1)
            for name in told:
                self.told.setdefault(name, level + 1)

    def _symbols_behind(self, value: SSAValue) -> set[str]:
        """The symbols defined in this function that a value is computed from."""
        found: set[str] = set()
        pending, seen = [value], set()
        while pending:
            op = producer(pending.pop())
            if op is None or op in seen:
                continue
            seen.add(op)
            found |= mentioned_symbols(op)
            pending += op.operands
        return found & self.told.keys()

    def _segment(self, ops: list[Operation], number: int) -> FuncOp:
        """Move the ops of one segment into a function and call it at the end of the driver."""
        block = self.function.body.block
        inside = set(ops)
        arguments = [value for value in free_values(ops) if not is_repeated(value)]
        results: dict[SSAValue, None] = {}
        for op in ops:
            for result in op.results:
                if any(self._user(use.operation) not in inside for use in result.uses):
                    results[result] = None
            told = {name for name in self._tells(op) if self.last_need.get(name, 0) > number}
            if told:
                results.update(dict.fromkeys(r for r in op.results if told & symbols_of(r)))
        kept = [  # versions of state that are only read here go on
            value
            for value in arguments
            if isinstance(value.type, StateType)
            and not any(
                self._user(use.operation) in inside and not isinstance(use.operation, StateReadOp) for use in value.uses
            )
        ]
        name = f"{self.function.sym_name.data}.segment{number}"
        outer = [use for value in (*results, *kept) for use in value.uses if self._user(use.operation) not in inside]
        function = outline(name, arguments, ops, [*results, *kept], ops[0].location)
        called = call(function, arguments, ops[0].location)
        block.insert_op_before(called, block.last_op)  # type: ignore[arg-type]
        replaced = dict(zip([*results, *kept], called.results, strict=True))
        for old, new in replaced.items():
            new.name_hint = old.name_hint
        for use in outer:
            old = use.operation.operands[use.index]
            use.operation.operands[use.index] = replaced[old]
        self.level[called] = number
        return function

    def _user(self, op: Operation) -> Operation:
        """The op of the function's own block in which a use stands."""
        while op.parent_block() is not self.function.body.block:
            parent = op.parent_op()
            if parent is None:
                return op
            op = parent
        return op


def _is_condition(op: Operation) -> bool:
    return isinstance(op, ItemOp) and op.symbol is None
