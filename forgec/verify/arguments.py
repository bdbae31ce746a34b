"""The arguments of the call that is compared: example inputs, replaced by name, in another dtype."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.runtime import arrays, tree
from forgec.runtime.aten import to_torch
from forgec.runtime.plan import Literal
from forgec.runtime.signature import Signature
from forgec.runtime.symbolic import SymExpr

DTYPES = ("float32", "float64", "bfloat16", "float16")


def in_dtype(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: str | None
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The model and its example inputs, those of floating point in another dtype if one is given. An exported program
    may have brought its example inputs along. FORGE-U005 where there can be no other dtype.
    """
    if isinstance(model, torch.export.ExportedProgram) and not args and not kwargs and model.example_inputs:
        args, kwargs = model.example_inputs
    if dtype is None:
        return model, tuple(args), dict(kwargs)
    if dtype not in DTYPES:
        raise error("FORGE-U005", f"dtype is {dtype!r}", notes=(f"values: {', '.join(DTYPES)}",))
    if isinstance(model, torch.export.ExportedProgram):
        raise error("FORGE-U005", "an exported program has the dtypes that it was exported with")
    wanted = getattr(torch, dtype)

    def converted(leaf: Any) -> Any:
        return leaf.to(wanted) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    if isinstance(model, torch.nn.Module):
        model = model.to(wanted)
    new_args, new_kwargs = _pytree.tree_map(converted, (tuple(args), dict(kwargs)))
    return model, new_args, new_kwargs


def replaced(
    signature: Signature, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example arguments with some leaves replaced by name; without examples every input must be named.

    Raises FORGE-R001 for unknown and missing names, FORGE-R002 for what is no tensor where one is needed.
    """
    entry = signature.entry
    has_none = args is None or (not args and not kwargs and bool(signature.leaf_names))
    examples = None if has_none else signature.leaves(tuple(args or ()), kwargs or {})
    names = signature.leaf_names
    fixed = [isinstance(leaf, Literal) for leaf in entry.inputs]
    wanted = [name for name, literal in zip(names, fixed, strict=True) if not literal]
    takes = (f"the program takes {signature.describe()}",)
    problems: list[Diagnostic] = []
    for name in inputs:
        if name not in wanted:
            close = difflib.get_close_matches(name, wanted, n=1)
            hint = f"did you mean {close[0]}?" if close else None
            problems.append(Diagnostic("FORGE-R001", f"there is no input {name}", notes=takes, help=hint))
    for name in wanted if examples is None else ():
        if name not in inputs:
            hint = f"pass --input {name}=@file.npy"
            problems.append(Diagnostic("FORGE-R001", f"input {name} is missing", notes=takes, help=hint))
    if problems:
        raise ForgeError(problems)
    leaves: list[Any] = []
    for position, (name, leaf) in enumerate(zip(names, entry.inputs, strict=True)):
        if name in inputs:
            leaves.append(_value(name, leaf, inputs[name]))
        else:
            leaves.append(to_torch(leaf.value) if isinstance(leaf, Literal) else (examples or [])[position])
    if examples is not None and not inputs:
        return tuple(args or ()), dict(kwargs or {})
    full_args, full_kwargs = tree.unflatten(entry.in_tree, leaves)
    return tuple(full_args), full_kwargs


def _value(name: str, leaf: Any, given: Any) -> Any:
    if isinstance(leaf, SymExpr):  # an int of the caller
        if isinstance(given, int):
            return given
        if getattr(given, "size", None) != 1 or given.dtype.kind not in "iu":
            raise error("FORGE-R002", f"input {name} is an int", help=f"pass --input {name}=i64=5")
        return int(given.item())
    return given if isinstance(given, torch.Tensor) else arrays.to_tensor(given)
