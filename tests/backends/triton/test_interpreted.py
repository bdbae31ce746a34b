"""The printed source means what the kernel does: Triton's interpreter against the reference, without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[3]


def test_the_source_does_what_the_kernel_does() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.backends.triton.interpreted"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(finished.stdout)
    assert len(found) > 90
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
