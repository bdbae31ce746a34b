"""What weights in fewer bits do to a model's outputs: its perplexity before and after, or how far outputs move."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgec.diagnostics import error

EXAMPLES = "examples"
"""Calibrates with the example inputs themselves."""
MANY_WINDOWS = 64
"""Windows of a file that are looked at, at most."""


def calibrated(
    model: Any, session: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Run the model and the compiled one side by side, on example inputs or on windows of a file's token ids.

    ``session`` makes a session of the compiled model; each window has one, and a copy of a model that keeps state.
    ``source`` is ``"examples"``, or a file of token ids (``.npy``, ``.safetensors`` or ``.pt``), which are cut into
    windows of the shape of the model's first input of integers [B, T]. Where the model returns ``logits`` [B, T, V], or
    that shape alone with as many V as it has embeddings, the result is ``{"perplexity_before", "perplexity_after",
    "tokens"}``: the exponential of the mean cross entropy of each next id. Else it is ``{"output_rms"}``: the root of
    the mean square of all outputs' differences, relative to that of the outputs.

    Raises FORGE-U001 for a file that is missing, FORGE-U005 for one that holds no ids, or fewer than a window.
    """
    import torch

    calls = _windows(args, kwargs, source)
    loss_before = loss_after = change = size = 0.0
    tokens = 0
    for call_args, call_kwargs in calls:
        compiled = session()
        eager = copy.deepcopy(model) if compiled.nbytes else model
        eager = eager.module() if isinstance(eager, torch.export.ExportedProgram) else eager
        with torch.no_grad():
            before, after = eager(*call_args, **call_kwargs), compiled(*call_args, **call_kwargs)
        ids = _ids(call_args, call_kwargs)
        for (path, a), (_, b) in zip(_floats(before), _floats(after), strict=True):
            change += float((a.double() - b.double()).square().sum())
            size += float(a.double().square().sum())
            if ids is not None and _is_logits(path, a, ids, model):
                loss_before, loss_after = loss_before + _loss(a, ids), loss_after + _loss(b, ids)
                tokens += ids[:, 1:].numel()
                break
    if tokens:
        return {
            "perplexity_before": _shown(math.exp(loss_before / tokens)),
            "perplexity_after": _shown(math.exp(loss_after / tokens)),
            "tokens": tokens,
        }
    return {"output_rms": _shown(math.sqrt(change / size) if size else math.sqrt(change))}


def _windows(args: Sequence[Any], kwargs: Mapping[str, Any], source: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """The calls: of the example inputs, or of them with ids of a file."""
    if source == EXAMPLES:
        return [(list(args), dict(kwargs))]
    ids = _ids(args, kwargs)
    if ids is None:
        raise error("FORGE-U005", "calibration takes token ids, and the model has no input of integers [B, T]")
    stored = _stored(Path(source))
    count = min(stored.numel() // ids.numel(), MANY_WINDOWS)
    if count == 0:
        raise error("FORGE-U005", f"{source} holds {stored.numel()} ids, a window takes {ids.numel()}")
    windows = stored.flatten()[: count * ids.numel()].reshape(count, *ids.shape).to(ids.dtype)
    return [
        (
            [window if value is ids else value for value in args],
            {name: window if value is ids else value for name, value in kwargs.items()},
        )
        for window in windows
    ]


def _stored(path: Path) -> Any:
    """The ids of a file."""
    import torch

    if not path.exists():
        raise error("FORGE-U001", f"there is no file {path}")
    try:
        if path.suffix == ".npy":
            import numpy as np

            found: Any = torch.from_numpy(np.load(path, allow_pickle=False))
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = next(iter(load_file(path).values()), None)
        else:
            found = torch.load(path, weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError) as fault:
        raise error("FORGE-U005", f"cannot read ids from {path}: {fault}") from fault
    except Exception as fault:  # safetensors and pickle have errors of their own
        raise error("FORGE-U005", f"cannot read ids from {path}: {fault}") from fault
    if not isinstance(found, torch.Tensor) or found.is_floating_point() or found.is_complex():
        raise error("FORGE-U005", f"{path} holds no tensor of integers")
    return found


def _ids(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The first input of integers [B, T]; None if there is none."""
    import torch

    integers = (torch.int64, torch.int32)
    return next(
        (v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor) and v.dim() == 2 and v.dtype in integers),
        None,
    )


def _floats(outputs: Any) -> list[tuple[str, Any]]:
    """The outputs that are floats, with their places in the result; ``logits`` first."""
    import torch
    from torch.utils import _pytree

    leaves, _ = _pytree.tree_flatten_with_path(outputs)
    found = [
        (_pytree.keystr(path), leaf)
        for path, leaf in leaves
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    return sorted(found, key=lambda item: "logits" not in item[0])


def _is_logits(path: str, value: Any, ids: Any, model: Any) -> bool:
    import torch

    if value.dim() != 3 or value.shape[:2] != ids.shape or ids.shape[1] < 2:
        return False
    if "logits" in path:
        return int(ids.max()) < value.shape[2]
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    return not path and any(isinstance(m, torch.nn.Embedding) and m.num_embeddings == value.shape[2] for m in modules)


def _loss(logits: Any, ids: Any) -> float:
    """The sum of the cross entropies of each next id."""
    import torch

    logits = logits[:, :-1].double().flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten().long(), reduction="sum"))


def _shown(value: float) -> float | str:
    """Five digits."""
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)
