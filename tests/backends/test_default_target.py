"""What is compiled for where nobody says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import forgec
from forgec.backends.cpu.backend import host_level
from forgec.backends.default_target import default_target
from forgec.diagnostics import ForgeError
from forgec.runtime import processor
from forgec.runtime.kernels import is_kernel
from tests.cli.command import forgec as command

MODEL = "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()).eval()\n"
X = torch.linspace(-1, 1, 24).reshape(3, 8)


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("FORGEC_TARGET")
    host_level.cache_clear()
    yield
    host_level.cache_clear()


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()).eval()


def kernels(compiled: forgec.CompiledModel) -> int:
    return sum(is_kernel(launch.op) for entry in compiled.plan.entries for launch in entry.launches)


@pytest.fixture
def without_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("flags : sse sse2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


@pytest.mark.skipif(host_level() is None, reason="this processor has no level that kernels are compiled for")
def test_in_memory_this_processors_level() -> None:
    compiled = forgec.compile(model(), (X,))
    assert compiled.target == "cpu:host"
    assert kernels(compiled) > 0
    torch.testing.assert_close(compiled(X), model()(X), rtol=2e-6, atol=2e-6)
    assert not [remark for remark in compiled.report.remarks if "machine code" in remark.message]
    lazy = forgec.compile(model())
    torch.testing.assert_close(lazy(X), model()(X), rtol=2e-6, atol=2e-6)


@pytest.mark.usefixtures("without_level")
def test_in_memory_without_a_level() -> None:
    compiled = forgec.compile(model(), (X,))
    assert compiled.target == "cpu:aten"
    assert kernels(compiled) == 0
    (remark,) = [remark for remark in compiled.report.remarks if "machine code" in remark.message]
    assert (remark.code, remark.severity) == ("FORGE-O002", "remark")
    assert "no level of x86-64" in remark.message
    assert torch.equal(compiled(X), model()(X))


@pytest.mark.usefixtures("without_level")
def test_artifacts_are_for_all_levels_whatever_compiles_them(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL + "example_inputs = (torch.randn(3, 8),)\n")
    assert command("compile", tmp_path / "m.py", "-o", tmp_path / "m.forge").code == 0
    found = command("check", tmp_path / "m.forge", "--machine", "x86-64-v3", "--json").json
    assert found["target"] == "cpu"
    assert [image["name"] for image in found["images"]] == ["x86-64-v3", "x86-64-v4"]
    assert found["operations"] == []
    assert command("check", tmp_path / "m.forge").code == 1


def test_the_environment_names_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_TARGET", "cpu:x86-64-v3")
    assert default_target() == default_target(for_others=True) == "cpu:x86-64-v3"
    assert forgec.compile(model(), (X,)).target == "cpu:x86-64-v3"
    assert forgec.compile(model(), (X,), target="cpu:aten").target == "cpu:aten"
    (tmp_path / "m.py").write_text(MODEL + "example_inputs = (torch.randn(3, 8),)\n")
    assert command("compile", tmp_path / "m.py", "-o", tmp_path / "m.forge", "--json").json["target"] == "cpu:x86-64-v3"
    monkeypatch.setenv("FORGEC_TARGET", "")
    assert default_target(for_others=True) == "cpu"


def test_the_environment_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_TARGET", "gpu")
    with pytest.raises(ForgeError, match=r"FORGE-U003.*FORGEC_TARGET names the unknown target 'gpu'"):
        forgec.compile(model(), (X,))
