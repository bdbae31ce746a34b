"""The calling contract of an exported program: structures of arguments and results, as the runtime knows them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree

from forgec.capture.convert import Conversion
from forgec.diagnostics import error
from forgec.ir.entry import EntryInfo
from forgec.runtime import tree
from forgec.runtime.plan import Arg, Reg
from forgec.runtime.symbolic import SymExpr


class _Leaf:
    """Stands for one leaf while a structure is rebuilt."""

    def __init__(self, index: int) -> None:
        self.index = index


def contract(program: torch.export.ExportedProgram, conversion: Conversion, model: Any) -> EntryInfo:
    """The contract of ``forward``. Raises ForgeError (C004) for containers that an artifact cannot describe."""
    in_order, in_tree = _structure(program.call_spec.in_spec, "input")
    out_order, out_tree = _structure(program.call_spec.out_spec, "output")
    tensors = {leaf: number for number, leaf in enumerate(conversion.inputs)}
    inputs: list[Arg] = [Reg(tensors[i]) if i in tensors else _fixed(conversion.fixed[i]) for i in in_order]
    outputs: list[Arg] = []
    for leaf in out_order:
        number = conversion.outputs[leaf]
        if number is None:
            outputs.append(_fixed(conversion.literals[leaf]))
        else:
            outputs.append((Reg(number),) if leaf in conversion.numbers else Reg(number))
    names = parameter_names(program, model)
    return EntryInfo.build(inputs, outputs, in_tree, out_tree, names, conversion.memory)


def _structure(spec: Any, what: str) -> tuple[list[int], tree.Tree]:
    """The runtime's structure of torch's tree spec, and torch's leaf numbers in the runtime's order of leaves."""
    order: list[int] = []
    try:
        return order, _node(spec, what, 0, order)
    except ValueError as reason:  # what an artifact cannot store: keys, contexts
        raise error("FORGE-C004", f"an {what} cannot be described in an artifact: {reason}") from None


def _node(spec: Any, what: str, first: int, order: list[int]) -> tree.Tree:
    """One node of torch's spec, whose leaves are numbered from ``first`` on."""
    if spec.is_leaf():
        order.append(first)
        return tree.LEAF
    children = spec.children()
    starts = [first + sum(child.num_leaves for child in children[:i]) for i in range(len(children))]
    if tree.is_registered(spec.type) and not is_dataclass(spec.type):
        parts = [_node(child, what, start, order) for child, start in zip(children, starts, strict=True)]
        context = tree.context_text(spec.type, spec.context)
        return tree.Tree("registered", tuple(parts), cls=tree.class_name(spec.type), context=context)
    kind: Any = spec.type
    value = _pytree.SUPPORTED_NODES[kind].unflatten_fn([_Leaf(i) for i in range(len(children))], spec.context)
    leaves, shallow = tree.flatten(value)
    if shallow.kind == "leaf" and not isinstance(value, _Leaf):
        raise error(
            "FORGE-C004",
            f"an {what} is a {type(value).__name__}, a container that an artifact cannot describe",
            help="return tensors in tuples, lists, dicts, named tuples or dataclasses",
        )
    parts = [_node(children[leaf.index], what, starts[leaf.index], order) for leaf in leaves]
    return replace(shallow, children=tuple(parts))


def _fixed(value: Any) -> Arg:
    if value is None or isinstance(value, (bool, int, float, str, SymExpr)):
        return value
    raise error("FORGE-C004", f"an argument is a {type(value).__name__}, which cannot be part of a compiled program")


def parameter_names(program: torch.export.ExportedProgram, model: Any) -> Sequence[str]:
    """Names of the model's positional parameters, in order; one that is positional only gets none that a call may
    use."""
    if isinstance(model, torch.export.ExportedProgram):
        signature = program.module_call_graph[0].signature
        return list(getattr(signature, "forward_arg_names", None) or [])
    function = model.forward if isinstance(model, torch.nn.Module) else model
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    found = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [f"argument {i}" if p.kind == p.POSITIONAL_ONLY else p.name for i, p in enumerate(found, 1)]
