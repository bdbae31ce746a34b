"""The runtime is small: what importing it loads, and how long that takes."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "xdsl", "typer", "rich", "ortools", "llvmlite", "onnx", "transformers", "triton", "safetensors"}
COMPILER = {
    "forgec.api",
    "forgec.cli",
    "forgec.ir",
    "forgec.capture",
    "forgec.passes",
    "forgec.backends",
    "forgec.report",
}


def output(code: str, *options: str) -> str:
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    code = (
        "import sys, forgec.runtime as r\n"
        "for name in r.__all__: getattr(r, name)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} | sys.modules.keys()))"
    )
    loaded = set(output(code).split())
    assert not loaded & (HEAVY | COMPILER | {"numpy", "pickle"})


def test_reading_an_artifact_needs_no_torch(tmp_path: object) -> None:
    code = (
        f"import sys; path = {str(tmp_path) + '/m.forge'!r}\n"
        "import forgec.runtime as r, numpy\n"
        "from tests.runtime.examples import mlp\n"
        "w = {'up': numpy.ones((8, 16), 'f4'), 'down': numpy.ones((16, 8), 'f4')}\n"
        "r.write_artifact(path, mlp(), w)\n"
        "a = r.open_artifact(path, verify='full'); a.plan; a.report; a.weights.names\n"
        "print('torch' in sys.modules)"
    )
    assert output(code).strip() == "False"


def test_a_missing_torch_is_told() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from forgec.diagnostics import ForgeError\n"
        "from forgec.runtime import Program\n"
        "from tests.runtime.examples import mlp\n"
        "try: Program(mlp(), None)\n"
        "except ForgeError as e: print(e)"
    )
    text = output(code)
    assert "error[FORGE-A006]: the plan calls 2 ATen operations and torch cannot be imported" in text
    assert "help: install torch 2.11 or newer" in text


def test_importing_the_runtime_is_fast() -> None:
    code = (
        "import time; import numpy; start = time.process_time(); import forgec.runtime as r; r.load;"
        "print(time.process_time() - start)"
    )
    assert min(float(output(code)) for _ in range(5)) < 0.1
