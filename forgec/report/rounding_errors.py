"""How far weights that are stored in fewer bits are from the model's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.ir.ops.shape import TransposeOp
from forgec.passes.round_weights import PRECISIONS

ROWS = 4
"""Random rows that outputs are computed for."""
SAMPLED = 4096
"""Rows of a weight that are looked at; of more, as many evenly spread ones."""


def errors_of_weights(module: ModuleOp, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An entry for each weight that ``round-weights`` has replaced."""
    return list(_errors(module, params))


def _errors(module: ModuleOp, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    import torch

    for name, precision, parts, is_turned in stored_parts(module):
        exact = params[name]
        exact = (exact.T if is_turned else exact).detach()
        made = {part: params[stored] for part, stored in parts.items()}
        chosen = torch.arange(0, len(exact), -(-len(exact) // SAMPLED))
        wanted = exact[chosen].double()
        found = dequantized(precision, {part: value[chosen] for part, value in made.items()}).double()
        random = torch.randn(wanted.shape[1], ROWS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        yield {
            "name": name,
            "precision": precision,
            "bytes_before": exact.numel() * exact.element_size(),
            "bytes": sum(value.numel() * value.element_size() for value in made.values()),
            "max": _shown((found - wanted).abs().max(), wanted.abs().max()),
            "rms": _shown(_rms(found - wanted), _rms(wanted)),
            "output_rms": _shown(_rms((found - wanted) @ random), _rms(wanted @ random)),
        }


def stored_parts(module: ModuleOp) -> Iterator[tuple[str, str, dict[str, str], bool]]:
    """Each weight that is stored in fewer bits: its name, the precision, the parameters that stand for it by what they
    are (``numbers``, ``scales``, ``zeros``), and whether it is turned on the way.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    turned: dict[tuple[str, str], bool] = {}
    for op in module.ops:
        if (
            not isinstance(op, ParamOp)
            or op.init is None
            or not isinstance(first := op.init.block.first_op, ParamRefOp)
        ):
            continue
        own, name = op.sym_name.data, first.param.root_reference.data
        precision, _, part = own.removeprefix(f"{name}.").rstrip("_").partition(".")
        if own.startswith(f"{name}.") and precision in PRECISIONS:
            found.setdefault((name, precision), {})[part or "numbers"] = own
            turned[name, precision] = any(isinstance(use.operation, TransposeOp) for use in first.result.uses)
    yield from ((*key, parts, turned[key]) for key, parts in found.items())


def dequantized(precision: str, parts: Mapping[str, Any]) -> Any:
    """The weight [N, K] that stored parts stand for, in float32."""
    import torch

    numbers = parts["numbers"]
    if precision == "bf16":
        return numbers.float()
    if "zeros" not in parts:
        return numbers.float() * parts["scales"].float()
    count = 8 if numbers.dtype == torch.int32 else 2
    found = torch.stack([(numbers >> 4 * place) & 15 for place in range(count)], -1).flatten(-2).float()
    groups = found.unflatten(-1, (parts["scales"].shape[-1], -1))
    return ((groups - parts["zeros"].float().unsqueeze(-1)) * parts["scales"].float().unsqueeze(-1)).flatten(-2)


def _rms(value: Any) -> Any:
    return value.square().mean().sqrt()


def _shown(error: Any, scale: Any) -> float | str:
    """The quotient to four digits."""
    found = float(error) / float(scale) if float(scale) else float(error)
    return float(f"{found:.4g}") if math.isfinite(found) else str(found)
