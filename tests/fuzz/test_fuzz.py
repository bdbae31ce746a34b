"""Short runs of the fuzzers; long ones are made by hand (see docs/security.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzz import batches
from tools.fuzz.batches import Limits, Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits memory")


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("artifacts", 150), ("texts", 400), ("models", 25),
        *(pytest.param(*case, marks=pytest.mark.wide) for case in (("artifacts", 400), ("texts", 600), ("models", 40))),
    ],
)  # fmt: skip
def test_nothing_is_found(target: str, count: int) -> None:
    command = [sys.executable, "-m", "tools.fuzz", target, "--count", str(count), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} cases of seed 1" in done.stdout


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from tools.fuzz import batches
from tests.fuzz.test_fuzz import bad_case
print(bad_case(Path(sys.argv[1])))
"""


def bad_case(scratch: Path) -> dict[int, str]:
    """What the runner says of cases that kill their process, hang, or take all memory."""
    import time

    def case(index: int) -> Outcome:
        if index == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        if index == 5:
            time.sleep(60)
        if index == 7:
            bytearray(1 << 33)
        return Outcome("kind", "fine")

    summary = batches.run(range(10), case, lambda index: "kind", scratch, limits=Limits(1.0, 1 << 30))
    return {index: outcome.result for index, outcome in summary.findings.items()}


def test_a_case_that_kills_its_process_is_named(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{3: 'killed by SIGSEGV', 5: 'out of time', 7: 'exited'}", done.stderr
