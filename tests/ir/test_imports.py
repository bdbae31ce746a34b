"""What importing the IR costs."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_ir_imports_no_torch() -> None:
    modules = "forgec.ir, forgec.ir.verify, forgec.ir.cost, forgec.ir.interpreter, forgec.ir.examples"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
