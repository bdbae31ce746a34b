"""Outputs as distributions: what a difference of logits means for the probabilities that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Distributions:
    """Two tensors of logits over their last dimension: the largest difference of two logits, and the Kullback–Leibler
    divergence of the softmax of the second from that of the first in nats, its mean over all rows and its maximum.
    """

    difference: float
    divergence: float
    largest_divergence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data; what is not finite is a text."""
        data = {"difference": self.difference, "kl": self.divergence, "kl_max": self.largest_divergence}
        return {k: v if math.isfinite(v) else str(v) for k, v in data.items()}


def compare_logits(expected: Any, found: Any) -> Distributions | None:
    """KL(expected ‖ found) in float64; None for what is no floating-point tensor with a last dimension of at least 2.

    Computed as ``Σ p (log p - log q)``; a logit of minus infinity has probability 0 and contributes nothing.
    """
    if not found.is_floating_point() or found.dim() < 1 or found.shape[-1] < 2 or expected.shape != found.shape:
        return None
    rows, columns = found.numel() // found.shape[-1] if found.numel() else 0, found.shape[-1]
    if rows == 0:
        return None
    wanted, given = expected.detach().reshape(rows, columns), found.detach().reshape(rows, columns)
    largest, total, worst = 0.0, 0.0, 0.0
    step = max(1, 2**22 // columns)  # 32 MiB in float64 at a time
    for first in range(0, rows, step):
        p, q = (torch.log_softmax(part[first : first + step].double(), -1) for part in (wanted, given))
        terms = torch.where(torch.isneginf(p), 0.0, p.exp() * (p - q))
        divergences = terms.sum(-1).clamp(min=0.0)
        total += float(divergences.sum())
        worst = max(worst, float(divergences.max()))
        between = given[first : first + step].double() - wanted[first : first + step].double()
        same = given[first : first + step] == wanted[first : first + step]
        largest = max(largest, float(torch.where(same, 0.0, between.abs()).max()))
    return Distributions(largest, total / rows, worst)
