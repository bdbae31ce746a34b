"""Settings that every test needs, and the skipping of tests whose device is not there."""

from __future__ import annotations

import gc
import os

# Before anything imports torch or transformers: no hub, no tokenizer threads, and one OpenMP thread for each of
# pytest-xdist's workers (two pools on two cores spend their time spinning).
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Most tests are not about machine code, and compiling it takes time; those that are name a target, or unset this.
os.environ["FORGEC_TARGET"] = "cpu:aten"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked ``gpu`` where there is no CUDA device; torch is imported only if there are such tests."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """Python's garbage collector leaves alone what is there before the first test: half a million objects of torch, of
    the compiler and of the tests themselves, through which each full collection would go. And it looks less often: what
    tests leave is mostly freed by reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled kernels of tests are cached in a folder of theirs, not in the user's."""
    os.environ["FORGEC_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "kernels")
