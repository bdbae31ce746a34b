"""How a function is called: the part of an entry point's contract that its types do not say.

Capture writes it as attributes of the function (``forge.entry``) and of its arguments; text without them gets the
plain contract:
every tensor argument is one positional argument, and the results are a tuple (or the one value).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import DictionaryAttr, IntAttr, StringAttr, UnitAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from forgec.ir.attributes import ArgsAttr, IntsAttr, StateType
from forgec.runtime import tree
from forgec.runtime.plan import Arg, Reg


@dataclass(frozen=True)
class EntryInfo:
    """``inputs``: for each leaf of the call's arguments, ``Reg(i)`` for tensor input i or a fixed value; ``outputs``
    likewise for the leaves of the result (``(Reg(i),)``: the number that tensor i holds); a SymExpr is an int of the
    caller or for the caller. ``in_tree`` and ``out_tree`` are JSON of :mod:`forgec.runtime.tree`.

    ``memory``: for each returned tensor, the number of the memory that it is in. Numbers below the count of tensor
    inputs are those inputs' memory; results with equal numbers may share bytes, others must not. None: whatever is
    cheapest."""

    inputs: ArgsAttr
    outputs: ArgsAttr | None
    in_tree: StringAttr
    out_tree: StringAttr
    parameters: ArgsAttr
    memory: IntsAttr | None = None

    @staticmethod
    def of(function: FuncOp) -> EntryInfo:
        """Read the contract of a function."""
        found = function.attributes.get("forge.entry")
        if isinstance(found, DictionaryAttr):
            d = found.data
            fields = (d["inputs"], d["outputs"], d["in_tree"], d["out_tree"], d["parameters"], d.get("memory"))
            return EntryInfo(*fields)  # type: ignore[arg-type]
        count = sum(_is_input(function, i) for i in range(len(function.body.block.args)))
        results = [t for t in function.function_type.outputs.data if not isinstance(t, StateType)]
        _, in_tree = tree.flatten((tuple(range(count)), {}))
        _, out_tree = tree.flatten(0 if len(results) == 1 else tuple(range(len(results))))
        inputs = ArgsAttr.of([Reg(i) for i in range(count)])
        return EntryInfo(inputs, None, _text(in_tree), _text(out_tree), ArgsAttr.of([]))

    @staticmethod
    def build(
        inputs: Sequence[Arg],
        outputs: Sequence[Arg],
        in_tree: tree.Tree,
        out_tree: tree.Tree,
        parameters: Sequence[str],
        memory: Sequence[int] | None = None,
    ) -> EntryInfo:
        """The contract from data."""
        trees = _text(in_tree), _text(out_tree)
        shared = None if memory is None else IntsAttr(memory)
        return EntryInfo(ArgsAttr.of(inputs), ArgsAttr.of(outputs), *trees, ArgsAttr.of(list(parameters)), shared)

    def attach(self, function: FuncOp) -> None:
        """Write the contract to a function."""
        assert self.outputs is not None
        fields: dict[str, Attribute] = {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "in_tree": self.in_tree,
            "out_tree": self.out_tree,
            "parameters": self.parameters,
            **({} if self.memory is None else {"memory": self.memory}),
        }
        function.attributes["forge.entry"] = DictionaryAttr(fields)

    def leaves(self, count: int) -> Sequence[Arg]:
        """The result's leaves: ``Reg(i)`` for the i-th returned tensor, or fixed values."""
        return [Reg(i) for i in range(count)] if self.outputs is None else self.outputs.arguments[0]


@dataclass(frozen=True)
class ArgumentInfo:
    """``name`` for people; ``inout``: state that is the caller's tensor; ``exact``: the caller's tensor must have the
    strides of its type, another layout would mean something else; ``offset``: and begin there in its storage;
    ``zeros``: state of a session that starts as zeros.
    """

    name: str
    inout: bool = False
    exact: bool = False
    zeros: bool = False
    offset: int | None = None

    def attribute(self) -> DictionaryAttr:
        """The argument attributes that say this."""
        flags = {"forge.inout": self.inout, "forge.exact": self.exact, "forge.zeros": self.zeros}
        described: dict[str, Attribute] = {"forge.name": StringAttr(self.name)}
        described |= {k: UnitAttr() for k, v in flags.items() if v}
        if self.offset is not None:
            described["forge.offset"] = IntAttr(self.offset)
        return DictionaryAttr(described)


def argument_info(function: FuncOp, position: int) -> ArgumentInfo:
    """What is said about one argument."""
    attributes = function.arg_attrs.data[position].data if function.arg_attrs is not None else {}
    name = attributes.get("forge.name")
    text = (
        name.data if isinstance(name, StringAttr) else function.body.block.args[position].name_hint or f"arg{position}"
    )
    flags = ("forge.inout", "forge.exact", "forge.zeros")
    offset = attributes.get("forge.offset")
    place = offset.data if isinstance(offset, IntAttr) else None
    return ArgumentInfo(text, *(flag in attributes for flag in flags), offset=place)


def _is_input(function: FuncOp, position: int) -> bool:
    argument = function.body.block.args[position]
    return not isinstance(argument.type, StateType) or argument_info(function, position).inout


def _text(structure: tree.Tree) -> StringAttr:
    return StringAttr(json.dumps(tree.to_json(structure), separators=(",", ":")))
