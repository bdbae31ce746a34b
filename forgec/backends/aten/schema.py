"""What torch's schemas say about an operator's ``out=`` form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from forgec.diagnostics import error


@dataclass(frozen=True)
class OutVariant:
    """The overload that writes its results into tensors of the caller, and the names of those arguments."""

    name: str
    outs: tuple[str, ...]


RESHAPING = frozenset(
    {
        *("mse_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy", "soft_margin_loss"),
        *("max_unpool2d", "max_unpool3d", "adaptive_avg_pool2d"),
        *("ormqr", "triangular_solve", "linalg_qr", "geqrf", "cholesky_inverse"),
    }
)
"""Operators whose ``out=`` forms may give the tensor that they write another shape or other strides: losses, for a step
before the mean; pools of channels-last inputs; matrices in the layout of LAPACK."""


def resolve(name: str) -> Any:
    """The ``OpOverload`` of ``namespace::op.overload``; FORGE-B002 if there is none."""
    import torch

    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    except (AttributeError, RuntimeError):
        raise error("FORGE-B002", f"this torch has no operator {name}") from None


@lru_cache(maxsize=4096)
def out_variant(name: str) -> OutVariant | None:
    """The true ``out=`` form of a functional operator, or None.

    torch generates ``out=`` forms that only call the functional form and copy; those bring nothing and are not taken.
    A form counts as true when it has a kernel for the CPU of its own.
    """
    import torch

    functional = resolve(name)
    packet = functional.overloadpacket
    if packet.__name__ in RESHAPING:
        return None
    inputs = [(a.name, str(a.type)) for a in functional._schema.arguments]
    for overload in packet.overloads():
        candidate = getattr(packet, overload)
        outs = tuple(a.name for a in candidate._schema.arguments if a.is_out)
        given = [(a.name, str(a.type)) for a in candidate._schema.arguments if not a.is_out]
        if not outs or given != inputs or torch.Tag.generated in candidate.tags:
            continue
        if torch._C._dispatch_has_kernel_for_dispatch_key(candidate.name(), "CPU"):
            return OutVariant(candidate.name(), outs)
    return None
