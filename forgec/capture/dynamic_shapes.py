"""Whether ``dynamic_shapes`` fits the example inputs: all that does not is said before torch.export is asked."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export.dynamic_shapes import Dim, ShapesCollection, _DimHint

from forgec.diagnostics import Diagnostic, ForgeError

_DIMENSION = "a forgec.Dim, an int, None or torch.export.Dim.AUTO"


def check_dynamic_shapes(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any) -> None:
    """Raises FORGE-U005 for each argument, key and dimension of ``shapes`` that the inputs do not have."""
    if shapes is None or isinstance(shapes, ShapesCollection):
        return
    found = [
        Diagnostic("FORGE-U005", message, help=remedy) for message, remedy in _problems(module, args, kwargs, shapes)
    ]
    if found:
        raise ForgeError(found)


Problem = tuple[str, str]


def _problems(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any
) -> Iterator[Problem]:
    arguments = _arguments(module, args, kwargs)
    if arguments is None:
        return
    listed = ", ".join(map(repr, arguments))
    if isinstance(shapes, Mapping):
        unknown = [key for key in shapes if key not in arguments]
        missing = [name for name in arguments if name not in shapes]
        if unknown:
            message = f"dynamic_shapes names {', '.join(map(repr, unknown))}, which the example inputs do not have"
            yield message, f"the example inputs are {listed}"
        elif missing:
            yield f"dynamic_shapes lacks {', '.join(map(repr, missing))}", "say None for what has no dynamic extents"
        for name in arguments:
            if name in shapes:
                yield from _unfit(f"{name!r}", arguments[name], shapes[name])
    elif isinstance(shapes, (list, tuple)):
        if len(shapes) != len(arguments):
            message = f"dynamic_shapes has {len(shapes)} items for {len(arguments)} example inputs"
            yield message, f"one item for each of {listed}; None for what has no dynamic extents"
            return
        for (name, value), spec in zip(arguments.items(), shapes, strict=True):
            yield from _unfit(f"{name!r}", value, spec)
    else:
        message = f"dynamic_shapes must be a dict by argument, or a tuple in their order, found {shapes!r}"
        yield message, f"the example inputs are {listed}"


def _arguments(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The example inputs by the names of the parameters; None where the call does not fit them, or gives ``**`` some,
    for which torch.export has rules of its own.
    """
    try:
        signature = inspect.signature(module.forward)
        bound = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    named = {name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD}
    return None if named & bound.keys() else dict(bound)


def _unfit(where: str, value: Any, spec: Any) -> Iterator[Problem]:
    """What is wrong with what is said of one input."""
    if spec is None:
        return
    if isinstance(value, torch.Tensor):
        yield from _unfit_tensor(where, value, spec)
    elif isinstance(value, (bool, int)) and not isinstance(spec, (int, _DimHint)):
        message = f"dynamic_shapes gives dimensions to {where}, which is a number"
        yield message, "say None, or torch.export.Dim.DYNAMIC for a number that may change"
    elif isinstance(value, dict) and type(value) is dict:
        if not isinstance(spec, Mapping) or set(spec) != set(value):
            named = list(spec) if isinstance(spec, Mapping) else type(spec).__name__
            message = f"dynamic_shapes says {named} of {where}, which is a dict with the keys {list(value)}"
            yield message, "a dict with the same keys; None for what has no dynamic extents"
            return
        for key in value:
            yield from _unfit(f"{where}[{key!r}]", value[key], spec[key])
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        if not isinstance(spec, (list, tuple)) or len(spec) != len(value):
            said = f"{len(spec)} items" if isinstance(spec, (list, tuple)) else f"a {type(spec).__name__}"
            message = f"dynamic_shapes gives {said} for {where}, which is a {type(value).__name__} of {len(value)}"
            yield message, f"a {type(value).__name__} with one item for each; None for what has no dynamic extents"
            return
        for index, (item, inner) in enumerate(zip(value, spec, strict=True)):
            yield from _unfit(f"{where}[{index}]", item, inner)


def _unfit_tensor(where: str, tensor: torch.Tensor, spec: Any) -> Iterator[Problem]:
    remedy = f"say {{dimension: forgec.Dim(...)}} with dimensions from 0 to {tensor.ndim - 1}"
    if isinstance(spec, _DimHint):
        return
    if isinstance(spec, Mapping):
        dims = dict(spec)
    elif isinstance(spec, (list, tuple)) and len(spec) == tensor.ndim:
        dims = dict(enumerate(spec))
    else:
        said = f"{len(spec)} of the dimensions" if isinstance(spec, (list, tuple)) else repr(spec)
        yield f"dynamic_shapes says {said} of {where}, a tensor of {tensor.ndim} dimensions", remedy
        return
    for dim, extent in dims.items():
        if type(dim) is not int or not -tensor.ndim <= dim < tensor.ndim:
            yield f"dynamic_shapes names dimension {dim!r} of {where}, a tensor of {tensor.ndim} dimensions", remedy
        elif type(extent) is int and extent != tensor.shape[dim]:
            message = (
                f"dynamic_shapes fixes dimension {dim} of {where} to {extent}, the example has {tensor.shape[dim]}"
            )
            yield message, "leave the dimension out, or give an example of that size"
        elif not (extent is None or type(extent) is int or isinstance(extent, (Dim, _DimHint))):
            named = f'forgec.Dim("{extent}")' if isinstance(extent, str) and extent.isidentifier() else _DIMENSION
            yield f"dynamic_shapes says {extent!r} of dimension {dim} of {where}", f"say {named}"
