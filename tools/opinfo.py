"""Compiled operators against eager PyTorch, on the samples that torch's own tests use (``op_db``).

python -m tools.opinfo                 every operator, all samples, static extents and dynamic ones
python -m tools.opinfo NAME…           only operators of these names
python -m tools.opinfo --samples 3     at most three samples, as different as possible, for each dtype

Prints how many samples agreed, how many torch.export refused, and what failed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch
from torch.utils import _pytree as pytree

import forgec
from forgec.diagnostics import ForgeError

DTYPES = (torch.float32, torch.int64, torch.bool)
GENERATED = 32
"""Samples of an operator and dtype among which those that are run are chosen; op_db may yield thousands."""
OTHER_STRIDES = ("nn.functional.max_unpool2d", "nn.functional.max_unpool3d")
"""Operators whose results torch.export foretells with other strides than they have; compiled programs keep to that."""
SEED = 42
"""op_db seeds its random operators with this, inside the operator; export leaves that out, so it is done outside."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One call of an operator: the leaves of its arguments, of which the tensors are the compiled function's inputs."""

    op: Any
    dtype: torch.dtype
    leaves: tuple[Any, ...]
    spec: Any

    @classmethod
    def of(cls, op: Any, dtype: torch.dtype, drawn: Any) -> Sample:
        leaves, spec = pytree.tree_flatten((drawn.input, drawn.args, drawn.kwargs))
        return cls(op, dtype, tuple(leaves), spec)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Fresh copies of the tensors, in order, with their strides."""
        return [_copy(leaf) for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    def __call__(self, tensors: Iterator[torch.Tensor]) -> Any:
        """The operator applied, with the next of ``tensors`` in the places of its own."""
        leaves = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        source, args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.op.op(source, *args, **kwargs)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for samples that differ in numbers only: ranks, dtypes and arguments that are no tensors."""
        return (self.spec, *(_kind(leaf) for leaf in self.leaves))

    def __str__(self) -> str:
        shown = ", ".join(str(_kind(leaf)) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in self.leaves)
        return f"{self.op.formatted_name}({shown})"


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        dense = leaf.layout is torch.strided
        layout = (leaf.is_contiguous(), leaf.numel() == 0) if dense else (str(leaf.layout),)
        return (str(leaf.dtype).removeprefix("torch."), leaf.dim(), *layout)
    return repr(leaf)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own, with the same strides where they address no element twice."""
    if tensor.layout is not torch.strided:
        return tensor.detach().clone()
    return tensor.detach().clone(memory_format=torch.preserve_format)


@cache
def database() -> dict[str, Any]:
    """torch's operators by name, with the variant where there are several of one name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {op.formatted_name: op for op in op_db}


def samples(op: Any, count: int | None) -> list[Sample]:
    """Samples of each dtype that the operator takes, at most ``count`` for each, as different as possible."""
    found: list[Sample] = []
    with warnings.catch_warnings(), _outside_of_unittest():
        warnings.simplefilter("ignore")
        known = [dtype for dtype in DTYPES if dtype in op.dtypes]
        for dtype in known or sorted(op.dtypes, key=str)[:1]:
            torch.manual_seed(0)
            drawn = op.sample_inputs("cpu", dtype, requires_grad=False)
            made = [Sample.of(op, dtype, s) for s in islice(drawn, None if count is None else GENERATED)]
            found += made if count is None else _diverse(made, count)
    return found


@contextmanager
def _outside_of_unittest() -> Iterator[None]:
    """op_db looks for a running unittest.TestCase, to seed samples by its name, and finds none here. It looks with
    ``inspect.stack``, which reads the source of every frame and takes longer than to compile what it draws."""
    from torch.testing._internal import common_utils
    from torch.testing._internal.opinfo import core

    with (
        patch.object(common_utils, "extract_test_fn", lambda: None),
        patch.object(core, "extract_test_fn", lambda: None),
    ):
        yield


def _diverse(made: Sequence[Sample], count: int) -> list[Sample]:
    """One sample of each kind, spread evenly over the list."""
    kinds = list({sample.kind: sample for sample in made}.values())
    if len(kinds) <= count:
        return kinds
    return [kinds[position * (len(kinds) - 1) // max(count - 1, 1)] for position in range(count)]


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: ``ok``, ``refused`` (by torch.export), ``eager`` (PyTorch itself refuses), or
    ``failed``."""

    sample: Sample
    status: str
    code: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.sample}: {self.status} {self.text}".strip()


class _Calls(torch.nn.Module):
    """Several samples in one program; all their tensors are inputs."""

    def __init__(self, calls: Sequence[Sample]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, *tensors: torch.Tensor) -> list[Any]:
        given = iter(tensors)
        return [call(given) for call in self.calls]


def outcomes(calls: Sequence[Sample], *, dynamic: bool = False) -> list[Outcome]:
    """Compile and compare samples: together in one program where that works, else one by one.

    With ``dynamic`` the first extent of every tensor may vary, and the program is also called with tensors of twice
    that extent where PyTorch takes them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = [call for call in calls if _eager([call]) is not None]
        refused = [Outcome(call, "eager") for call in calls if call not in fit]
        if len(fit) > 1:
            whole = _attempt(fit, dynamic)
            if whole is None:
                return [*(Outcome(call, "ok") for call in fit), *refused]
        singles = [_attempt([call], dynamic) or Outcome(call, "ok") for call in fit]
        if len(fit) > 1 and all(o.status == "ok" for o in singles) and not _draws(fit):
            return [*(Outcome(call, "failed", "", f"only together: {whole}") for call in fit), *refused]
        return [*singles, *refused]


def _draws(calls: Sequence[Sample]) -> bool:
    """True if the operator draws random numbers: op_db seeds each call, one after the other they would go on."""
    return "wrapper_set_seed" in getattr(getattr(calls[0].op.op, "__code__", None), "co_names", ())


def _eager(calls: Sequence[Sample], tensors: Sequence[torch.Tensor] | None = None) -> tuple[Any, list[Any]] | None:
    """What PyTorch yields and leaves in the inputs, or None if it refuses."""
    given = [t for call in calls for t in call.tensors] if tensors is None else [_copy(t) for t in tensors]
    torch.manual_seed(SEED)
    try:
        with torch.no_grad():
            return _Calls(calls)(*given), given
    except Exception:
        return None


def _attempt(calls: Sequence[Sample], dynamic: bool) -> Outcome | None:
    """None if the compiled program agrees with PyTorch, else the outcome, said of the first of the calls."""
    inputs = [t for call in calls for t in call.tensors]
    shapes = None
    if dynamic:
        shapes = (tuple({0: torch.export.Dim.AUTO} if t.dim() and t.shape[0] > 1 else None for t in inputs),)
    try:
        compiled = forgec.compile(_Calls(calls), tuple(_copy(t) for t in inputs), dynamic_shapes=shapes)
    except ForgeError as failure:
        status = "refused" if failure.code == "FORGE-C001" else "failed"
        return Outcome(calls[0], status, failure.code, str(failure))
    except Exception as failure:
        return Outcome(calls[0], "failed", "", f"{type(failure).__name__}: {failure}")
    given = [inputs]
    if dynamic:
        given.append([torch.cat([t, t]) if t.dim() and t.shape[0] > 1 else t for t in inputs])
    for tensors in given:
        expected = _eager(calls, tensors)
        if expected is None:
            continue
        try:
            after = [_copy(t) for t in tensors]
            torch.manual_seed(SEED)
            found = compiled(*after)
            difference = _difference(found, expected[0], calls) or _difference(after, expected[1], calls, "inputs: ")
        except Exception as failure:
            code = failure.code if isinstance(failure, ForgeError) else ""
            return Outcome(calls[0], "failed", code, f"{type(failure).__name__}: {failure}")
        if difference:
            return Outcome(calls[0], "failed", "", difference)
    return None


def _difference(found: Any, expected: Any, calls: Sequence[Sample], what: str = "") -> str:
    """The first difference between results: their number, types, shapes, strides or values; empty if there is none."""
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    if len(ours) != len(theirs):
        return f"{what}{len(ours)} results, {len(theirs)} expected"
    undefined = any("empty" in call.op.name for call in calls)
    for a, b in zip(ours, theirs, strict=True):
        if not isinstance(b, torch.Tensor):
            if a != b and not (a != a and b != b):
                return f"{what}{a!r}, {b!r} expected"
            continue
        if not isinstance(a, torch.Tensor) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{what}{_described(a)}, {_described(b)} expected"
        if _is_dense(b) and a.stride() != b.stride() and not what and calls[0].op.name not in OTHER_STRIDES:
            return f"strides {a.stride()}, {b.stride()} expected"
        if not undefined:
            bound = 0 if a.dtype.itemsize == 1 else 1e-5
            try:
                torch.testing.assert_close(a.resolve_conj(), b.resolve_conj(), equal_nan=True, rtol=bound, atol=bound)
            except AssertionError as reason:
                return f"{what}{reason}"
    return ""


def _described(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


def _is_dense(tensor: torch.Tensor) -> bool:
    """True if the tensor's elements fill its memory, and its strides mean something."""
    if tensor.numel() == 0 or tensor.layout is not torch.strided or any(extent == 1 for extent in tensor.shape):
        return False
    return torch.ops.aten.is_non_overlapping_and_dense(tensor)


def is_pointwise_or_reduction(op: Any) -> bool:
    """True for the classes of operators whose first extent can vary whatever their other arguments are."""
    return type(op).__name__ in ("UnaryUfuncInfo", "BinaryUfuncInfo", "ReductionOpInfo")


def main(arguments: Iterable[str]) -> int:
    """The command line; returns the exit status: 1 if a sample failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.opinfo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="operators; all by default")
    parser.add_argument("--samples", type=int, help="samples for each dtype")
    options = parser.parse_args(list(arguments))
    start, counts = time.monotonic(), Counter[str]()
    failed: dict[str, list[Outcome]] = {}
    for name, op in database().items():
        if options.names and name not in options.names and op.name not in options.names:
            continue
        drawn = samples(op, options.samples)
        found = [o for at in range(0, len(drawn), 8) for o in outcomes(drawn[at : at + 8])]
        if is_pointwise_or_reduction(op):
            found += outcomes(samples(op, 1), dynamic=True)
        counts.update(outcome.status for outcome in found)
        bad = [outcome for outcome in found if outcome.status == "failed"]
        if bad:
            failed[name] = bad
            print(f"{name}: {len(bad)} of {len(found)}: {' | '.join(str(bad[0]).splitlines())[:400]}", flush=True)
    print(f"{dict(counts)}; {len(failed)} operators failed; {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
