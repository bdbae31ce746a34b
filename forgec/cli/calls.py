"""Calls of an artifact from the command line: arguments by name, results by name, latencies."""

from __future__ import annotations

import difflib
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.runtime import tree
from forgec.runtime.dtypes import from_numpy
from forgec.runtime.plan import Literal, Plan
from forgec.runtime.signature import Signature, result_names
from forgec.runtime.symbolic import SymExpr
from forgec.runtime.tensor_library import numpy_library

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SHOWN_ELEMENTS = 16
"""Results of up to this many elements are printed, larger ones described."""


def arguments(
    plan: Plan, entry_name: str | None, arrays: Mapping[str, Array]
) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """The arguments for a call of an entry point, whose tensors are given by name; fixed values are filled in.

    Raises FORGE-R001 for missing and unknown names, FORGE-U005 for an unknown entry.
    """
    try:
        entry = plan.entry(entry_name)
    except KeyError:
        known = ", ".join(entry.name for entry in plan.public)
        raise error("FORGE-U005", f"there is no entry {entry_name}", help=f"the entries are: {known}") from None
    signature = Signature(entry, plan.symbols)
    wanted = [
        name for name, leaf in zip(signature.leaf_names, entry.inputs, strict=True) if not isinstance(leaf, Literal)
    ]
    _check_names(signature, wanted, arrays)
    leaves = [_leaf(name, leaf, arrays) for name, leaf in zip(signature.leaf_names, entry.inputs, strict=True)]
    args, kwargs = tree.unflatten(entry.in_tree, leaves)
    return tuple(args), kwargs, entry.name


def by_name(inputs: Sequence[tuple[str, Array]]) -> dict[str, Array]:
    """The arrays by name. Raises FORGE-U005 when a name is given twice."""
    names = [name for name, _ in inputs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise error("FORGE-U005", f"--input {twice} is given twice")
    return dict(inputs)


def _check_names(signature: Signature, wanted: list[str], arrays: Mapping[str, Array]) -> None:
    takes = (f"the artifact takes {signature.describe()}",)
    problems = []
    for name in arrays:
        if name not in wanted:
            close = difflib.get_close_matches(name, wanted, n=1)
            help = f"did you mean {close[0]}?" if close else None
            problems.append(Diagnostic("FORGE-R001", f"there is no input {name}", notes=takes, help=help))
    for name in wanted:
        if name not in arrays:
            problems.append(
                Diagnostic("FORGE-R001", f"input {name} is missing", notes=takes, help=f"pass --input {name}=@file.npy")
            )
    if problems:
        raise ForgeError(problems)


def _leaf(name: str, leaf: object, arrays: Mapping[str, Array]) -> Any:
    if isinstance(leaf, Literal):
        return numpy_library().constant(leaf.value)
    if isinstance(leaf, SymExpr):  # an int of the caller
        array = arrays[name]
        if array.size != 1 or array.dtype.kind not in "iu":
            raise error("FORGE-R002", f"input {name} is an int", help=f"pass --input {name}=i64=5")
        return int(array.item())
    return arrays[name]


def timed(session: Any, args: tuple[Any, ...], kwargs: dict[str, Any], entry_name: str) -> tuple[Any, float]:
    """The results of one call and the milliseconds that it took."""
    start = time.perf_counter()
    results = session(*args, entry=entry_name, **kwargs)
    return results, (time.perf_counter() - start) * 1e3


def named_results(results: Any) -> dict[str, Any]:
    """The leaves of a call's results by name, arrays copied (a later call may write what they alias)."""
    from forgec.runtime.arrays import to_array

    leaves, structure = tree.flatten(results)
    named: dict[str, Any] = {}
    for name, value in zip(result_names(structure), leaves, strict=True):
        value = to_array(value) if hasattr(value, "detach") else value
        named[name] = value.copy() if hasattr(value, "dtype") else value
    return named


def npz(named: Mapping[str, Any]) -> bytes:
    """The arrays as a .npz file. It has no bfloat16 and no 8-bit floats: those are widened to float32, exactly."""
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in named.items() if value is not None}
    widened = {name: array.astype(np.float32) if array.dtype.kind == "V" else array for name, array in arrays.items()}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **widened)
    return stream.getvalue()


def as_data(named: Mapping[str, Any], first_ms: float, latencies_ms: list[float]) -> dict[str, Any]:
    """Results and latencies as JSON-compatible data. Values are included where they are few and finite."""
    data: dict[str, Any] = {"outputs": [], "first_call_ms": first_ms}
    for name, value in named.items():
        if not hasattr(value, "dtype"):
            data["outputs"].append({"name": name, "value": value})
            continue
        described: dict[str, Any] = {"name": name, "dtype": from_numpy(value.dtype), "shape": list(value.shape)}
        if value.size <= SHOWN_ELEMENTS and _is_finite(value):
            described["value"] = value.tolist()
        data["outputs"].append(described)
    if latencies_ms:
        data["latency_ms"] = {"iterations": len(latencies_ms), **_summary(latencies_ms)}
    return data


def as_text(named: Mapping[str, Any], first_ms: float, latencies_ms: list[float]) -> str:
    """Results and latencies for people."""
    lines = [f"{name}: {_describe(value)}" for name, value in named.items()]
    lines.append(f"first call: {first_ms:.3f} ms")
    if latencies_ms:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in _summary(latencies_ms).items())
        lines.append(f"latency of {len(latencies_ms)} more calls in ms: {figures}")
    return "\n".join(lines)


def _describe(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return repr(value)
    kind = f"{from_numpy(value.dtype)}[{', '.join(map(str, value.shape))}]"
    if value.size <= SHOWN_ELEMENTS:
        return f"{kind} = {value.tolist()}"
    if value.dtype.kind in "bc":
        return kind
    wide = value.astype("float64")
    return f"{kind}, min {wide.min():.6g}, mean {wide.mean():.6g}, max {wide.max():.6g}"


def _is_finite(value: Array) -> bool:
    import numpy as np

    return value.dtype.kind in "biu" or (value.dtype.kind != "c" and bool(np.isfinite(value.astype(np.float64)).all()))


def _summary(latencies_ms: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(latencies_ms),
        "min": min(latencies_ms),
        "mean": statistics.fmean(latencies_ms),
        "max": max(latencies_ms),
    }
