"""What torch.export refuses with a message that does not help, refused before it runs."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils import _pytree

from forgec.diagnostics import ForgeError, Location, error

LEAVES = (torch.Tensor, bool, int, float, str, type(None))
"""What an input may consist of. Dataclasses are containers: they are registered with torch before it sees them."""


CONTAINERS = "tuples, lists, dicts, named tuples or dataclasses"


def refused_output(reason: str) -> ForgeError | None:
    """torch.export's word about a result of a type that it does not know, as a diagnostic."""
    found = re.search(r"Found <class '([^']+)'> in output", reason)
    return None if found is None else _output_refusal(found[1])


def output_refusal(kind: type) -> ForgeError:
    """The diagnostic for a result of a type that torch does not know."""
    return _output_refusal(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def _output_refusal(name: str) -> ForgeError:
    remedy = f"return tensors and numbers in {CONTAINERS}"
    if name.startswith("transformers.") and name.endswith("Cache"):
        remedy = "pass use_cache=False, or return what the cache holds"
    elif "." in name and not name.startswith("torch."):
        remedy += ", or make the class one that torch knows: torch.utils._pytree.register_pytree_node"
    return error("FORGE-C004", f"an output is a {name}", help=remedy)


def reshaped_itself(operator: str, what: str, place: Location | None = None) -> ForgeError:
    """The diagnostic for ``x.t_()``, ``x.set_(y)`` and the like of a tensor that the caller or the model holds."""
    name = operator.removeprefix("aten::").partition(".")[0]
    remedy = "write into it (copy_), or give the new tensor a name of its own"
    if name not in ("set_", "resize_", "resize_as_"):
        remedy = f"give the view a name of its own: y = x.{name.removesuffix('_')}(...)"
    return error("FORGE-C003", f"{operator} changes the shape or memory of {what} itself", location=place, help=remedy)


def refuse_model(model: Any) -> None:
    """Raises ForgeError (C001) for modules that hold no Python code to trace, or that are not initialised yet."""
    if isinstance(model, torch.jit.ScriptFunction):
        raise _refusal("a function that TorchScript compiled", "pass the Python function that it was made from")
    if not isinstance(model, torch.nn.Module):
        return
    for path, child in model.named_modules():
        what = f"the submodule {path!r}" if path else "the model"
        if isinstance(child, torch.jit.ScriptModule):
            raise _refusal(f"{what} is a TorchScript module", "pass the Python module that it was made from")
        if _is_uninitialised(child):
            raise _refusal(f"{what} is lazy and has not seen an input", "call the model once before it is compiled")
        if "quantized" in type(child).__module__ and any(isinstance(v, torch.ScriptObject) for v in _held(child)):
            raise _refusal(
                f"{what} is a {type(child).__name__}, whose weights are packed in an object of TorchScript",
                "compile the model before it is quantized",
            )


def _is_uninitialised(child: Any) -> bool:
    return isinstance(child, LazyModuleMixin) and child.has_uninitialized_params()  # type: ignore[misc]


def _held(module: torch.nn.Module) -> list[Any]:
    packed = getattr(module, "_packed_params", None)
    return [packed, getattr(packed, "_packed_params", None)]


def _refusal(what: str, remedy: str) -> ForgeError:
    return error("FORGE-C001", f"torch.export cannot export the model: {what}", help=remedy)


def refuse_inputs(value: Any) -> None:
    """Raises ForgeError (C004) for leaves of the example inputs that no program can take."""
    for leaf in _pytree.tree_leaves(value, is_leaf=_is_packed):
        if isinstance(leaf, LEAVES) or _is_container(leaf):
            continue
        kind = type(leaf)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise error("FORGE-C004", f"an example input is a {name}", help=_remedy(leaf))


def _is_packed(value: Any) -> bool:
    return isinstance(value, torch.nn.utils.rnn.PackedSequence)


def _is_container(leaf: Any) -> bool:
    from dataclasses import is_dataclass

    return is_dataclass(leaf) and not isinstance(leaf, type)


def _remedy(leaf: Any) -> str:
    if _is_packed(leaf):
        return "pass the padded tensor and the lengths"
    if isinstance(leaf, (torch.dtype, torch.device, torch.layout, torch.memory_format, complex)):
        return "fix it where the model is compiled: functools.partial(model, name=value)"
    if type(leaf).__module__ == "numpy":
        return "pass torch.from_numpy(x) as example; the compiled model takes arrays"
    remedy = f"use tensors and numbers in {CONTAINERS}"
    known = type(leaf).__module__.partition(".")[0] in ("builtins", "torch")
    return remedy if known else f"{remedy}, or register the class: torch.utils._pytree.register_pytree_node"
