"""Comparison of two results of a model, whichever library holds them."""

from __future__ import annotations

from typing import Any


def difference(before: Any, after: Any, rtol: float, atol: float) -> str | None:
    """What differs between two tensors (of torch or numpy), or None if they agree within the tolerances."""
    if str(before.dtype) != str(after.dtype):
        return f"dtype {before.dtype} became {after.dtype}"
    if tuple(before.shape) != tuple(after.shape):
        return f"shape {tuple(before.shape)} became {tuple(after.shape)}"
    import numpy as np

    old, new = _as_numpy(before), _as_numpy(after)
    if old.dtype.kind not in "fc":
        wrong = int(np.count_nonzero(old != new))
        return f"{wrong} of {old.size} elements differ" if wrong else None
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return f"{int(np.isnan(old).sum())} NaNs became {int(np.isnan(new).sum())}, or moved"
    with np.errstate(invalid="ignore"):
        same = (old == new) | np.isnan(old)
        error = np.where(same, 0.0, np.abs(new - old))
    limit = atol + rtol * np.abs(np.where(np.isfinite(old), old, 0.0))
    wrong = int(np.count_nonzero(~(error <= limit)))
    if not wrong:
        return None
    return f"{wrong} of {old.size} elements differ, by up to {float(np.max(error)):.3g}"


def _as_numpy(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # numpy has no bfloat16, and the comparison wants the precision anyhow
        return value.numpy()
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "fV" and array.dtype.itemsize <= 8 else array
