"""Runs the printed source of cases in Triton's own interpreter, which needs no GPU: ``python -m …interpreted [NAME…]``.

It is a program of its own, since Triton decides on import whether it interprets. Prints a JSON object: case → what
differs from the reference.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from forgec.backends.triton.compile import functions_of
from tests.backends.triton.cases import Case, all_cases
from tests.backends.triton.model_cases import model_cases
from tests.backends.triton.random_cases import random_case

MODELS = ("gpt2", "llama")
RANDOM = 40
"""How many random kernels are run."""


class Libdevice:
    """The functions of libdevice that kernels call, which the interpreter lacks."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        compute = _FUNCTIONS[name] if name in _FUNCTIONS else getattr(torch, name)

        def call(first: Any, *others: Any) -> Any:
            handle = first.handle
            arrays = [torch.from_numpy(np.asarray(handle.data))]
            for other in others:
                data = other.handle.data if hasattr(other, "handle") else other
                arrays.append(torch.from_numpy(np.asarray(data, dtype=handle.data.dtype)))
            found = compute(*arrays).numpy().astype(handle.data.dtype)
            return tl.tensor(interpreter.TensorHandle(found, handle.dtype), first.type)

        return call


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rint": torch.round,
    "round": lambda x: torch.copysign(torch.trunc(x.abs() + 0.5), x),  # half away from zero
    "fmod": lambda x, y: torch.from_numpy(np.asarray(np.fmod(x.numpy(), y.numpy()))),
    "cbrt": lambda x: torch.from_numpy(np.asarray(np.cbrt(x.numpy()))),
}


def _to_scalars(tensor: Any, scope: Any, original: Callable[..., None] = interpreter._patch_lang_tensor) -> None:
    """The interpreter's scalars are arrays of rank 1, which newer versions of numpy do not take for numbers."""
    original(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def run(case: Case) -> list[str]:
    """What differs from the reference."""
    expected = None if case.failing_check else case.expected()
    tensors = case.tensors()
    source = case.source
    flag = torch.zeros((), dtype=torch.int32)
    arguments = case.arguments(tensors) + ([flag] if source.checks else [])
    with functions_of(source) as module, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's about infinities
        module["libdevice"] = Libdevice()
        if case.programs():
            module[source.name][(case.programs(),)](*arguments, **dict(source.constants))
    if int(flag) != case.failing_check:
        return [f"check {int(flag)} failed, expected {case.failing_check}"]
    return [] if expected is None else case.differences(tensors, expected, case.not_interpreted)


def _cases() -> dict[str, Case]:
    random = {f"random_{seed}": random_case(seed) for seed in range(RANDOM)}
    models = {name: case for model in MODELS for name, case in model_cases(model).items()}
    return {**all_cases(), **random, **models}


def main(names: list[str]) -> None:
    interpreter._patch_lang_tensor = _to_scalars
    found: dict[str, list[str]] = {}
    for name, case in _cases().items():
        if case.interpreted and (not names or any(wanted in name for wanted in names)):
            try:
                found[name] = run(case)
            except Exception:
                found[name] = [traceback.format_exc(limit=-6)]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
