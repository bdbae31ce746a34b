"""What the operators of an exported graph write and alias: by torch's schemas, and by the storages it traced with."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from forgec.capture.call import Schema, schema_of
from forgec.runtime.extents import element_span

HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
"""Inputs of the graph that are tensors of the model."""

MUTATIONS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION)
"""Outputs of a functionalized graph that are new values of what the model writes."""

DROPOUTS = ("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout")


def bind(schema: Schema, node: torch.fx.Node) -> dict[str, Any]:
    """A call's arguments by name, defaults filled in."""
    bound: dict[str, Any] = {name: default for name, default, _ in schema.arguments}
    bound.update(zip(bound, node.args, strict=False))
    bound.update(node.kwargs)
    return bound


def leaves(value: Any) -> list[Any]:
    """What a call returns, in order: its results, and the items of those that are lists."""
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]


def per_result(schema: Schema, value: Any) -> list[str | None]:
    """The aliased argument of each of ``leaves(value)``; a returned list aliases as a whole."""
    several = isinstance(value, (list, tuple)) and len(schema.aliases) > 1
    results = value if several else [value] * len(schema.aliases)
    return [alias for alias, result in zip(schema.aliases, results, strict=False) for _ in leaves(result)]


def returned_operand(overload: Any, arguments: dict[str, Any]) -> torch.fx.Node | None:
    """The operand that a call returns as it is: dropout in evaluation, which neither its schema nor tracing tells."""
    if overload.name() in DROPOUTS and (not arguments["train"] or arguments["p"] == 0):
        return arguments["input"]
    return None


def source_of(
    node: torch.fx.Node, overload: Any, arguments: dict[str, Any], alias: str | None, position: int
) -> torch.fx.Node | None:
    """The node of the tensor whose memory a result may share: what the schema says, else what torch.export saw."""
    if arguments.get("copy") is True or overload is torch.ops.aten.lift_fresh_copy.default:
        return None
    found = arguments.get(alias) if alias else returned_operand(overload, arguments)
    if isinstance(found, (list, tuple)):  # what a foreach operator returns
        found = found[position]
    return found if isinstance(found, torch.fx.Node) else _traced_source(node, position)


def _traced_source(node: torch.fx.Node, position: int) -> torch.fx.Node | None:
    """The operand that had the result's storage while torch.export traced. Programs that were saved have lost this."""
    storage = _storage(node, position)
    return next((n for n in node.all_input_nodes if storage is not None and _storage(n, 0) == storage), None)


def _storage(node: torch.fx.Node, position: int) -> int | None:
    found = leaves(node.meta.get("val"))
    value = found[position] if position < len(found) else None
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    try:
        return value.untyped_storage()._cdata
    except NotImplementedError:  # a tensor that torch.func has wrapped
        return None


@lru_cache(maxsize=1024)
def functional_form(overload: Any) -> tuple[Any, bool]:
    """The functional form of an operator that writes: ``add_`` → ``add``, ``add.out`` → ``add.Tensor`` (then True)."""
    packet, _, variant = overload.name().partition("::")[2].partition(".")
    namespace = getattr(torch.ops, overload.namespace)
    base = packet[:-1] if packet.endswith("_") and not packet.endswith("__") else packet
    if packet.startswith("__i"):
        base = f"__{packet[3:]}"
    if base != packet and hasattr(namespace, base):
        return _overload_taking(getattr(namespace, base), variant, _inputs(overload)), False
    if packet.endswith("_") or not variant.endswith("out"):
        return None, False
    written = schema_of(overload).writes
    inputs = {name: kind for name, kind in _inputs(overload).items() if name not in written}
    return _overload_taking(getattr(namespace, packet), "", inputs), True


def _inputs(overload: Any) -> dict[str, str]:
    return {a.name: str(a.type) for a in overload._schema.arguments}


def _overload_taking(family: Any, variant: str, inputs: dict[str, str]) -> Any:
    """The overload with these arguments that writes none of them, if there is one; the one of that name if it fits."""
    names = sorted(family.overloads(), key=lambda name: name != (variant or "default"))
    candidates = (getattr(family, name) for name in names)
    return next((c for c in candidates if _inputs(c) == inputs and not schema_of(c).writes), None)


def written_placeholders(program: ExportedProgram) -> set[str]:
    """Names of the placeholders whose memory the program writes, through whatever views."""
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    written: set[str] = set()
    _collect_writes(program.graph, {n: {n.name} for n in placeholders}, written)
    signature = program.graph_signature
    by_target = {str(spec.target): spec.arg.name for spec in signature.input_specs if spec.target}
    for spec in signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            written.add(by_target[str(spec.target)])
        elif spec.kind == OutputKind.USER_INPUT_MUTATION:
            written.add(str(spec.target))
    return written


Roots = dict[Any, set[str]]
"""For nodes, the placeholders whose memory they may share."""


def _collect_writes(graph: torch.fx.Graph, roots: Roots, written: set[str]) -> list[set[str]]:
    """Add to ``written`` the roots that the graph's nodes write; returns the roots of each result of the graph."""
    results: dict[Any, list[set[str]]] = {}
    returned: list[set[str]] = []
    for node in graph.nodes:
        if node.op == "output":
            values = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
            returned = [roots.get(value, set()) for value in values]
        elif node.op != "call_function":
            continue
        elif node.target is operator.getitem:
            source, position = node.args
            roots[node] = results[source][position] if position < len(results.get(source, ())) else set()
        elif isinstance(node.target, torch._ops.OpOverload):
            results[node] = _collect_call(node, roots, written)
            roots[node] = results[node][0] if results[node] else set()
        else:
            results[node] = _collect_body(node, roots, written)
    return returned


def written_nodes(schema: Schema, bound: dict[str, Any]) -> list[torch.fx.Node]:
    """The tensors that a call writes; an argument may be a list of them, or absent."""
    return [node for name in schema.writes for node in nodes_of(bound[name])]


def nodes_of(value: Any) -> list[torch.fx.Node]:
    """The nodes in an argument: the argument, or what it lists."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, torch.fx.Node)]


def _collect_call(node: torch.fx.Node, roots: Roots, written: set[str]) -> list[set[str]]:
    overload: Any = node.target
    schema = schema_of(overload)
    bound = bind(schema, node)
    if torch.Tag.inplace_view not in overload.tags or overload is torch.ops.aten.set_.source_Tensor:
        for target in written_nodes(schema, bound):
            written.update(roots.get(target, ()))
    if overload is torch.ops.aten.set_.source_Tensor:
        return [roots.get(bound["source"], set())]
    value = node.meta.get("val")
    aliases = per_result(schema, value)
    sources = [source_of(node, overload, bound, alias, position) for position, alias in enumerate(aliases)]
    return [roots.get(source, set()) for source in sources]


def _collect_body(node: torch.fx.Node, roots: Roots, written: set[str]) -> list[set[str]]:
    """The same for a call of a part of the graph, whose operands follow it among the arguments."""
    body = next((n for n in node.all_input_nodes if n.op == "get_attr"), None)
    if body is None:
        return []
    graph = operator.attrgetter(str(body.target))(body.graph.owning_module).graph
    operands = node.args[node.args.index(body) + 1 :]
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    given = {n: roots.get(operand, set()) for n, operand in zip(inputs, operands, strict=False)}
    return _collect_writes(graph, given, written)


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``[first, last)`` of one storage."""

    storage: int
    first: int
    last: int

    def overlaps(self, other: ByteRange) -> bool:
        """True if some byte belongs to both."""
        return self.storage == other.storage and self.first < other.last and other.first < self.last


def identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same elements in the same memory."""
    place = (tensor.untyped_storage()._cdata, tensor.storage_offset())
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def byte_range(tensor: torch.Tensor) -> ByteRange:
    """The bytes from the first to the last element of a tensor."""
    width = tensor.element_size()
    first = int(tensor.storage_offset()) * width
    last = first + int(element_span(tuple(tensor.shape), tensor.stride())) * width
    return ByteRange(tensor.untyped_storage()._cdata, first, last)
