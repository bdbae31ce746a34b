"""Compilation keeps one copy of the weights: the model's own."""

import sys

import pytest

from benchmarks.compile_memory import measure


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_while_compiling() -> None:
    found = measure(16)
    assert found["weights"] > 250e6
    assert found["peak"] - found["before"] <= 1.2 * found["weights"] + 300e6
