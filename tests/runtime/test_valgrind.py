"""What ``make check-valgrind`` finds: nothing in kernels, and what is wrong where something is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy
import pytest
import torch

from forgec.runtime import write_artifact
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.native import native
from tests.runtime.packages import link_packages
from tools import valgrind
from tools.valgrind.__main__ import errors, is_of_a_kernel, prepare, run

needed = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")

LOG = """==7== Memcheck, a memory error detector
==7==
==7== Invalid read of size 4
==7==    at 0x1234: ??? (in /tmp/wrong.forge)
==7==    by 0x5678: forgec_run (in /tmp/wrong.forge)
==7==  Address 0x9 is 0 bytes after a block of size 20 alloc'd
==7==    at 0x4848: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)
==7==
==7== Conditional jump or move depends on uninitialised value(s)
==7==    at 0x4321: PyLong_FromLong (longobject.c:1)
==7==
==7== HEAP SUMMARY:
"""


def test_errors_in_a_log() -> None:
    found = errors(LOG)
    assert [text.splitlines()[0][:12] for text in found] == ["Invalid read", "Conditional "]
    assert [is_of_a_kernel(text) for text in found] == [True, False]
    assert valgrind.__doc__


@needed
@pytest.mark.wide
def test_kernels_are_clean_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    """One run: a kernel reads an element behind its input, and writes an output of which another part stays empty."""
    b = EntryBuilder()
    x, y, z = b.input("x", f32(5)), b.output("y", f32(5)), b.output("z", f32(5))
    b.kernel("shifted", x, y, 2, 1, grid=(5,), writes=(y,))
    b.kernel("shifted", x, z, 1, 1, grid=(4,), writes=(z,))
    write_artifact(tmp_path / "wrong.forge", plan_of(b.build((y, z))), {}, kernels=native("shifted"))
    numpy.savez(tmp_path / "wrong.npz", x=torch.ones(5).numpy())
    link_packages(tmp_path / "packages", "numpy", "ml_dtypes")
    prepare("reductions", tmp_path)
    found = run(tmp_path, 1, ["wrong", "reductions"])
    assert found.names == ("wrong", "reductions")
    kinds = {text.strip().splitlines()[0] for text in found.problems if "results under" not in text}
    assert kinds == {"Invalid read of size 4", "Syscall param write(buf) points to uninitialised byte(s)"}
    assert sum("wrong.forge" in text for text in found.problems) == 1
    assert not any("reductions" in text for text in found.problems)
