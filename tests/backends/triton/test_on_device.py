"""Every kernel on a GPU, against the reference: ``python -m pytest -m gpu tests/backends/triton``.

The machine code is compiled as for an artifact (no specialisation, no contraction) and launched through the driver, so
that what is tested is what artifacts hold. Outputs are poisoned before each run.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

import torch

from forgec.backends.triton.compile import compile_source
from tests.backends.triton.cases import Case, all_cases
from tests.backends.triton.driver import Loaded
from tests.backends.triton.random_cases import random_case

pytestmark = pytest.mark.gpu
ARCHITECTURES = {(8, 0): "sm_80", (9, 0): "sm_90a", (10, 0): "sm_100a"}


def run(case: Case) -> list[str]:
    """What differs from the reference."""
    capability = torch.cuda.get_device_capability()
    if capability not in ARCHITECTURES:
        pytest.skip(f"no code is generated for compute capability {capability}")
    if capability < (8, 9) and "f8E4M3FN" in str(case.kernel):
        pytest.skip("this architecture has no float8_e4m3fn")
    tensors = case.tensors()
    failed = Loaded(compile_source(case.source, ARCHITECTURES[capability])).run(case, tensors)
    if failed != case.failing_check:
        return [f"check {failed} failed, expected {case.failing_check}"]
    return [] if case.failing_check else case.differences(tensors, case.expected())


@pytest.mark.parametrize("name", all_cases())
def test_kernels(name: str) -> None:
    assert run(all_cases()[name]) == []


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_kernels(first: int) -> None:
    cases = [random_case(seed) for seed in range(first, first + 20)]
    assert {case.name: wrong for case in cases if (wrong := run(case))} == {}


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_kernels_of_models(model: str, dynamic: bool) -> None:
    pytest.importorskip("transformers")
    from tests.backends.triton.model_cases import model_cases

    target = f"cuda:{ARCHITECTURES.get(torch.cuda.get_device_capability(), 'sm_90a')}"
    cases = model_cases(model, target, dynamic=dynamic)
    assert {name: wrong for name, case in cases.items() if (wrong := run(case))} == {}
