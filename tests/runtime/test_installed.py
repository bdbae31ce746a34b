"""``pip install forgec[runtime]`` into an environment of its own: its size, and that a language model answers in it.

Needs a package index; skipped where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import torch

import forgec
from tests.models.test_static_cache import greedy, step
from tests.runtime.packages import ROOT

DOWNLOAD_BYTES = 40_000_000
ANSWER = """
import json, sys, time
start = time.process_time()
import forgec.runtime
seconds = time.process_time() - start
import importlib.util, numpy
model = forgec.runtime.load(sys.argv[1], threads=1)
session, token, produced = model.session(), numpy.array([[5]]), []
for _ in range(16):
    token = session(token)[:, -1:].argmax(-1)
    produced.append(int(token[0, 0]))
heavy = ("torch", "xdsl", "llvmlite", "ortools", "safetensors", "rich", "typer", "jinja2")
found = [name for name in heavy if importlib.util.find_spec(name)]
print(json.dumps({"tokens": produced, "seconds": seconds, "found": found, "from": forgec.__file__}))
"""


def run(*command: Any, **options: Any) -> str:
    """What a command prints; the environment knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def download(folder: Path) -> None:
    """The wheels that forgec needs to run, and its own."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    fetched = subprocess.run(
        [*pip, "--timeout=10", "--retries=1", "download", "--only-binary=:all:", "-d", folder, "numpy", "ml_dtypes"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip("no package index can be reached")
    own = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, "."]
    source = folder.parent / "source"
    source.mkdir()
    for name in ("forgec", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    run(*own, cwd=source)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="machine code is for Linux on x86-64")
def test_a_language_model_answers_where_only_the_runtime_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    wheels, environment = tmp_path / "wheels", tmp_path / "env"
    wheels.mkdir()
    download(wheels)
    assert sum(wheel.stat().st_size for wheel in wheels.iterdir()) < DOWNLOAD_BYTES
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "-q", "install", "--no-index", "--find-links", wheels, "forgec[runtime]")
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    assert {package["name"] for package in installed} - {"pip", "setuptools"} == {"forgec", "ml_dtypes", "numpy"}

    artifact = tmp_path / "decode.forge"
    forgec.compile(step(registered=False), (torch.tensor([[1]]),), target="cpu:host").save(artifact)
    with torch.no_grad():
        expected = greedy(step(registered=False), 5, 16)
    found = json.loads(run(python, "-I", "-c", ANSWER, artifact, cwd=tmp_path))
    assert found["tokens"] == expected
    assert found["found"] == []
    assert Path(found["from"]).is_relative_to(environment)
    again = [json.loads(run(python, "-I", "-c", ANSWER, artifact, cwd=tmp_path))["seconds"] for _ in range(2)]
    assert min(again) < 0.3, "seconds to import forgec.runtime, numpy included"
