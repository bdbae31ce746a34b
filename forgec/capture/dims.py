"""Dynamic extents as the user declares them."""

from __future__ import annotations

from typing import Any


def Dim(name: str, *, min: int | None = None, max: int | None = None) -> Any:  # noqa: A002, N802 - torch.export's spelling
    """A named dynamic extent in ``[min, max]``, for ``dynamic_shapes``: torch.export's own ``Dim``.

    Raises ForgeError (FORGE-U005) for a range that torch.export cannot represent.
    """
    import torch

    from forgec.diagnostics import error

    if min is not None and max is not None and min > max:
        raise error("FORGE-U005", f"dimension {name!r} has the empty range [{min}, {max}]")
    return torch.export.Dim(name, min=min, max=max)
