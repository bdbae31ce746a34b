"""Blocks, loops and branches in Triton: results are variables that are assigned again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from xdsl.dialects import scf
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import Attribute, Block, Operation

from forgec.backends.triton import memory
from forgec.backends.triton.text import Text, literal
from forgec.backends.triton.writer import Writer, refusal
from forgec.ir.tile.memory import CheckOp

WriteOp = Callable[[Writer, Operation], None]


def block(writer: Writer, body: Block, write: WriteOp) -> None:
    """The ops of a block; what follows a check stands in its ``else``, so that nothing outside is touched."""
    sequence(writer, list(body.ops), write)


def sequence(writer: Writer, ops: Sequence[Operation], write: WriteOp) -> None:
    for position, op in enumerate(ops):
        if isinstance(op, CheckOp):
            header = writer.line(f"{memory.check(writer, op)}  # {one_line(op.message.data)}", op)
            with writer.indented(header):
                writer.line(f"tl.store({writer.error_pointer}, {op.number.data})")
            rest = ops[position + 1 :]
            if rest:
                writer.line("else:")
                with writer.indented(header):
                    sequence(writer, rest, write)
            return
        write(writer, op)


def one_line(text: str) -> str:
    """For comments."""
    return " ".join(text.split())


def loop(writer: Writer, op: scf.ForOp, write: WriteOp) -> None:
    """``for k in range(…):`` over variables that begin with the operands and are assigned at the end."""
    body = op.body.block
    counter, *arguments = body.args
    names: list[str] = []
    for argument, initial, result in zip(arguments, op.iter_args, op.results, strict=True):
        name = writer.fresh(argument.name_hint or result.name_hint or "carried")
        names.append(name)
        text = writer.carried(writer[initial], argument.type)
        writer.line(f"{name} = {text.code}", op)
        carried = Text(name, writer.shape(argument.type))
        writer.set(argument, carried)
        writer.set(result, carried)
    bounds = [writer[value] for value in (op.lb, op.ub, op.step)]
    codes = [text.code for text in bounds]
    if codes[2] == "1":
        codes = codes[:2]
        if codes[0] == "0":
            codes = codes[1:]
    variable = writer.fresh(counter.name_hint or "k")
    header = writer.line(f"for {variable} in range({', '.join(codes)}):", op)
    with writer.changing([*names, variable], header):
        dtype = writer.dtype(counter)
        if dtype == "int64":
            writer.set(counter, writer.named(variable, Text(f"tl.cast({variable}, tl.int64)")))
        else:
            writer.set(counter, Text(variable, plain=True))
        block(writer, body, write)


def while_loop(writer: Writer, op: scf.WhileOp, write: WriteOp) -> None:
    """``while go_on:``; what comes before the test is written twice: ahead of the loop and at the end of its body."""
    before, after = op.before_region.block, op.after_region.block
    if any(isinstance(inner, CheckOp) for inner in before.walk()):
        raise refusal(op, "a check before the test of a loop has no form in Triton")
    names = [writer.fresh(argument.name_hint or "carried") for argument in before.args]
    for name, argument, initial in zip(names, before.args, op.arguments, strict=True):
        writer.line(f"{name} = {writer.carried(writer[initial], argument.type).code}", op)
        writer.set(argument, Text(name, writer.shape(argument.type)))
    passed = [writer.fresh(result.name_hint or "passed") for result in op.results]
    go_on = writer.fresh("go_on")

    def test() -> None:
        block(writer, before, lambda w, inner: None if isinstance(inner, scf.ConditionOp) else write(w, inner))
        condition = before.last_op
        assert isinstance(condition, scf.ConditionOp)
        for name, value, result in zip(passed, condition.args, op.results, strict=True):
            writer.line(f"{name} = {writer.carried(writer[value], result.type).code}", condition)
        writer.line(f"{go_on} = {writer.typed(writer[condition.condition], condition.condition.type).code}", condition)

    for name, result, argument in zip(passed, op.results, after.args, strict=True):
        text = Text(name, writer.shape(result.type))
        writer.set(result, text)
        writer.set(argument, text)
    with writer.forgetting():
        test()
    header = writer.line(f"while {go_on}:", op)
    with writer.changing([*names, *passed], header):
        block(writer, after, lambda w, inner: None if isinstance(inner, scf.YieldOp) else write(w, inner))
        end = after.last_op
        assert isinstance(end, scf.YieldOp)
        _assign(writer, end, names, [argument.type for argument in before.args])
        test()


def branch(writer: Writer, op: scf.IfOp, write: WriteOp) -> None:
    """``if … else …``, where both assign the results."""
    names = [writer.fresh(result.name_hint or "chosen") for result in op.results]
    for name, result in zip(names, op.results, strict=True):
        writer.set(result, Text(name, writer.shape(result.type)))
    if any(isinstance(inner, CheckOp) for region in op.regions for inner in region.walk()):
        for name, result in zip(names, op.results, strict=True):  # what a failed check leaves
            zero = literal(False if result.type == IntegerType(1) else 0)
            writer.line(f"{name} = {writer.full(zero, result.type).code}", op)
    condition = writer.typed(writer[op.cond], op.cond.type)
    header = writer.line(f"if {condition.code}:", op)
    with writer.indented(header):
        block(writer, op.true_region.block, write)
    if op.false_region.blocks:
        writer.line("else:")
        with writer.indented(header):
            block(writer, op.false_region.block, write)


def give(writer: Writer, op: scf.YieldOp) -> None:
    """Assigns what a loop carries, or the results of a branch."""
    parent = op.parent_op()
    assert parent is not None
    _assign(writer, op, [writer[result].code for result in parent.results], [result.type for result in parent.results])


def _assign(writer: Writer, op: scf.YieldOp, names: Sequence[str], kinds: Sequence[Attribute]) -> None:
    """All at once where one value reads what another assigns."""
    values = [writer.carried(writer[value], kind).code for value, kind in zip(op.operands, kinds, strict=True)]
    pairs = [(name, code) for name, code in zip(names, values, strict=True) if name != code]
    conflict = any(
        re.search(rf"\b{name}\b", code) for position, (name, _) in enumerate(pairs) for _, code in pairs[position + 1 :]
    )
    if conflict:
        left, right = (", ".join(part) for part in zip(*pairs, strict=True))
        writer.line(f"{left} = {right}", op)
        return
    for name, code in pairs:
        writer.line(f"{name} = {code}", op)
