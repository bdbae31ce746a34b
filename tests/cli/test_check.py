"""``forgec check``: whether an artifact loads, which image of its machine code, and why not."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from forgec.runtime import control, kernels, loadable, plan_outline, processor, write_artifact
from forgec.runtime.artifact import open_artifact
from tests.cli.command import forgec
from tests.runtime.examples import counter
from tests.runtime.native import gather, native, scaled
from tools.fuzz.packing import Part, consistent, put_together, take_apart

NAMES = ("double_it", "scale_rows")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    images = [native(*NAMES, isa=isa) for isa in ("x86-64-v2", "x86-64-v4")]
    write_artifact(tmp_path / "m.forge", scaled(), {}, kernels=images, target="cpu")
    return tmp_path / "m.forge"


@pytest.fixture
def fallback(tmp_path: Path) -> Path:
    """An artifact whose plan calls torch."""
    write_artifact(tmp_path / "aten.forge", counter(), {})
    return tmp_path / "aten.forge"


def test_here(artifact: Path) -> None:
    finished = forgec("check", artifact)
    assert finished.code == 0, finished.out
    assert finished.out.splitlines()[-1] == f"{artifact} loads here"
    assert "kernels for x86-64-v2, 4 kB" in finished.out
    found = forgec("check", artifact, "--json").json
    assert found["loads"] is True
    assert found["machine"] == "this machine"
    assert found["target"] == "cpu"
    here = processor.best(open_artifact(artifact).images)
    assert here is not None
    assert found["chosen"] == here.table.image


@pytest.mark.parametrize(
    ("machine", "chosen"),
    [("x86-64-v4", "x86-64-v4"), ("x86-64-v3", "x86-64-v2"), ("x86-64-v2, avx512f", "x86-64-v2"), ("sse2", None)],
)
def test_described_machines(artifact: Path, machine: str, chosen: str | None) -> None:
    finished = forgec("check", artifact, "--machine", machine, "--json")
    assert (finished.code, finished.json["chosen"]) == (int(chosen is None), chosen)
    missing = {image["name"]: image["reason"] or "" for image in finished.json["images"]}
    if machine == "x86-64-v3":
        assert missing["x86-64-v4"] == (
            "a processor with x86-64-v3 lacks avx512f, avx512bw, avx512cd, avx512dq, avx512vl"
        )
    if chosen is None:
        (problem,) = finished.json["problems"]
        assert problem["code"] == "FORGE-A007"
        assert "a processor with sse2 lacks cmov, cx8, fxsr, mmx, sse, cx16" in problem["message"]


def test_saved_cpuinfo(artifact: Path, tmp_path: Path) -> None:
    saved = tmp_path / "cpuinfo"
    flags = [processor._OTHER_NAMES.get(name, name) for name in processor.LEVELS["x86-64-v2"]]
    saved.write_text(f"processor\t: 0\nflags\t\t: {' '.join(flags)}\n")
    assert "kernels for x86-64-v2, 4 kB: would be chosen" in forgec("check", artifact, "--machine", saved).out
    saved.write_text(f"processor\t: 0\nflags\t\t: {' '.join(flags).replace('ssse3', '')}\n")
    assert "that processor lacks ssse3" in forgec("check", artifact, "--machine", saved).out
    saved.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\n")
    finished = forgec("check", artifact, "--machine", saved)
    assert finished.code == 1
    assert "this is a machine of type aarch64" in finished.out
    saved.write_text("nothing\n")
    assert "does not tell what the processor has" in forgec("check", artifact, "--machine", saved).out


def test_machines_that_are_none(artifact: Path, tmp_path: Path) -> None:
    finished = forgec("check", artifact, "--machine", "x86-64-v5", "--json")
    assert (finished.code, finished.error_codes) == (1, ["FORGE-U005"])
    finished = forgec("check", artifact, "--machine", tmp_path / "none")
    assert finished.code == 1
    assert "FORGE-U001" in finished.err


def test_without_torch(artifact: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forgec("check", fallback).code == 0
    monkeypatch.setattr(loadable, "_is_installed", lambda package: False)
    finished = forgec("check", fallback, "--json")
    (problem,) = finished.json["problems"]
    assert (finished.code, problem["code"]) == (1, "FORGE-A006")
    assert all(name in problem["notes"][0] for name in finished.json["operations"])
    assert forgec("check", fallback, "--machine", "x86-64-v3").code == 0  # whether torch is there is not known
    assert forgec("check", artifact).code == 0


def test_what_needs_torch() -> None:
    """A copy of elements as they are does not; one that converts, or whose result is taken, does."""
    assert plan_outline.OWN == (kernels.NAMESPACE, control.NAMESPACE)
    registers = [{"dtype": dtype} for dtype in ("f32", "f32", "bf16")]

    def found(**launch: Any) -> plan_outline.Outline:
        launch = {"op": "aten::copy_", "args": [{"reg": 0}, {"reg": 1}], **launch}
        return plan_outline.outline(
            {"torch_version": "2", "entries": [{"registers": registers, "launches": [launch, {"op": "kernel::k"}]}]}
        )

    assert found() == plan_outline.Outline((), ("cpu",), "2")
    assert found(results=[None]).operations == ()
    for change in ({"args": [{"reg": 0}, {"reg": 2}]}, {"kwargs": {"non_blocking": True}}, {"results": [5]}):
        assert found(**change).operations == ("aten::copy_",)
    assert found(args=[{"reg": 0}, 1.0]).needs_torch
    registers[0]["device"] = "cuda:0"
    assert found().devices == ("cpu", "cuda:0")
    assert found().needs_torch


def test_plans_that_are_none(artifact: Path) -> None:
    parts = dict(take_apart(artifact.read_bytes()))
    parts["plan.json"] = Part(b'{"entries": [{"launches": 3}]}')
    manifest = json.loads(parts["manifest.json"].stored)
    artifact.write_bytes(put_together(consistent(parts, manifest)))
    (problem,) = forgec("check", artifact, "--json").json["problems"]
    assert problem["code"] == "FORGE-A004"


def test_damage(artifact: Path, tmp_path: Path) -> None:
    sound = artifact.read_bytes()
    place = sound.index(b"scale_rows")
    artifact.write_bytes(sound[:place] + b"S" + sound[place + 1 :])
    finished = forgec("check", artifact)
    assert finished.code == 1
    assert "FORGE-A003" in finished.out
    assert finished.out.splitlines()[-1] == f"{artifact} does not load here"
    artifact.write_bytes(sound[:-30])
    assert "FORGE-A001" in forgec("check", artifact).out
    assert forgec("check", tmp_path / "none").err.startswith("error[FORGE-U001]")
    assert forgec("check", tmp_path / "none", "--json").error_codes == ["FORGE-U001"]


def test_full_reads_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.forge"
    weights = {"table": torch.arange(10, dtype=torch.float32)}
    write_artifact(path, gather(), weights, kernels=native("take"))
    assert forgec("check", path, "--full").code == 0
    content = bytearray(path.read_bytes())
    place = content.index(weights["table"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert forgec("check", path).code == 0
    finished = forgec("check", path, "--full")
    assert finished.code == 1
    assert "FORGE-A003" in finished.out


def test_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.forge"
    weights = {"table": torch.randn(10)}
    write_artifact(path, gather(), weights, kernels=native("take"), external_weights=tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "moved")
    assert "FORGE-A005" in forgec("check", path).out
    assert forgec("check", path, "--weights", tmp_path / "moved").code == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("a", "--no-such-option")])
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    finished = forgec("check", *arguments)
    assert finished.code == 2
    assert finished.err.startswith("Usage: forgec check [OPTIONS] ARTIFACT")


def seconds_of(*command: str) -> float:
    """Processor time, which unlike the clock's does not depend on what else runs at the same time."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def test_it_takes_a_tenth_of_a_second(artifact: Path) -> None:
    took = seconds_of(sys.executable, "-m", "forgec", "check", str(artifact))
    assert took < max(0.1, 5 * seconds_of(sys.executable, "-c", "pass"))  # the latter where the machine is busy


def test_it_imports_nothing_that_takes_long(artifact: Path) -> None:
    code = (
        "import sys, json; from forgec.cli import run; assert run(['check', sys.argv[1]]) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "numpy", "xdsl", "llvmlite", "typer", "rich", "ortools", "forgec.runtime.plan", "forgec.ir"}
    assert not heavy & imported
