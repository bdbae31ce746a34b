"""Dynamic extents as the user declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def Dim(name: str, *, min: int | None = None, max: int | None = None) -> Any:
    """A named dynamic extent in ``[min, max]``, for ``dynamic_shapes``: torch.export's own ``Dim``.

    Raises ForgeError (FORGE-U005) for a name or a range that torch.export cannot represent.
    """
    import torch

    from forgec.diagnostics import error

    if not isinstance(name, str) or not name.isidentifier():
        raise error("FORGE-U005", f"{name!r} is no name for a dimension", help="use an identifier, such as 'batch'")
    for bound in (min, max):
        if bound is not None and (type(bound) is not int or bound < 0):
            raise error("FORGE-U005", f"dimension {name!r} has the bound {bound!r}, a number of at least 0 is needed")
    if min is not None and max is not None and min > max:
        raise error("FORGE-U005", f"dimension {name!r} has the empty range [{min}, {max}]")
    return torch.export.Dim(name, min=min, max=max)


def dim_labels(
    program: Any, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> dict[str, str]:
    """What to call each of torch's symbols: the name of the user's ``Dim``, else the input and its dimension
    (``input_ids.1``)."""
    import torch
    from torch.export.graph_signature import InputKind

    specs: list[Any] = []
    _collect((tuple(args), dict(kwargs)), _by_argument(parameters, args, kwargs, dynamic_shapes), specs)
    signature = program.graph_signature.input_specs
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    inputs = [n for n, s in zip(placeholders, signature, strict=True) if s.kind == InputKind.USER_INPUT]
    labels: dict[str, str] = {}
    for position, node in enumerate(inputs):
        value = node.meta.get("val")
        spec = specs[position] if position < len(specs) else None
        if isinstance(value, torch.SymInt) and value.node.expr.is_Symbol:
            labels.setdefault(str(value.node.expr), getattr(spec, "__name__", node.name))
        if not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if not isinstance(size, torch.SymInt):
                continue
            names = size.node.expr.free_symbols
            if len(names) == 1:
                declared = _declared(spec, axis)
                name = getattr(getattr(declared, "root", declared), "__name__", None)
                if not isinstance(name, str) and size.node.expr.is_Symbol:
                    name = f"{node.name}.{axis}"
                if isinstance(name, str):
                    labels.setdefault(str(*names), name)
    return labels


def run_time_labels(program: Any) -> dict[str, str]:
    """What to call the symbols that only the run tells: the operator that does (``nonzero(x).0``: its extent 0). Where
    it is applied to something that has no name, as the user wrote the call."""
    from forgec.capture.places import place_of
    from forgec.capture.wording import call_at

    labels: dict[str, str] = {}
    for node in program.graph.nodes:
        for name, path in (node.meta.get("unbacked_bindings") or {}).items():
            operator = str(getattr(getattr(node.target, "_schema", None), "name", node.name)).rpartition("::")[2]
            operands = ", ".join(operand.name for operand in node.all_input_nodes)
            axis = next((f".{key.idx}" for key in reversed(path) if hasattr(key, "idx")), "")
            plain = operator.strip("_").partition(".")[0]
            inputs = all(operand.op == "placeholder" for operand in node.all_input_nodes)
            call = None if inputs else call_at(place_of(node), "item" if plain == "local_scalar_dense" else plain)
            labels.setdefault(str(name), f"{call or f'{plain}({operands})'}{axis}")
    return labels


def _declared(spec: Any, axis: int) -> Any:
    """What the user says about one dimension."""
    if isinstance(spec, Mapping):
        return spec.get(axis)
    return spec[axis] if isinstance(spec, (list, tuple)) and axis < len(spec) else None


def _by_argument(parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any) -> Any:
    """``dynamic_shapes`` in the structure of ``(args, kwargs)``."""
    if isinstance(shapes, Mapping):
        names = list(parameters)[: len(args)]
        return (tuple(shapes.get(name) for name in names), {name: shapes.get(name) for name in kwargs})
    if isinstance(shapes, (list, tuple)):
        return (tuple(shapes[: len(args)]), dict(zip(kwargs, shapes[len(args) :], strict=False)))
    return None


def _collect(value: Any, spec: Any, found: list[Any]) -> None:
    """Append the spec of each leaf of ``value``, in order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, spec.get(key) if isinstance(spec, Mapping) else None, found)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            inner = spec[position] if isinstance(spec, (list, tuple)) and position < len(spec) else None
            _collect(item, inner, found)
    else:
        found.append(spec)
