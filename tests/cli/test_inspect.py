from pathlib import Path

import pytest
import torch

import forgec as compiler
from forgec.backends.cpu.backend import host_level
from forgec.cli.inspect_view import size
from forgec.cli.ir_text import without_locations
from forgec.runtime import processor
from tests.cli.command import forgec


def test_summary(static_artifact: Path):
    finished = forgec("inspect", static_artifact)
    assert (finished.code, finished.err) == (0, "")
    for text in (
        "target                  cpu:aten",
        "pipeline                cse,dce,roll-loops,outline-layers",
        "entry forward(x: f32[2, 3, 8], scale=3.0)",
        "f32[2, 3, 4]",
        "aten::addmm.out",
        "aten::special_i1",
        "model.py:11 in Model.forward",
        "peak memory of forward",
    ):
        assert text in finished.out
    assert "[bold]" not in finished.out


def test_summary_of_a_dynamic_artifact(dynamic_artifact: Path):
    finished = forgec("inspect", dynamic_artifact)
    assert "seq in [2, 64]" in finished.out
    assert "f32[2, seq]" in finished.out
    assert " for seq = " in finished.out


@pytest.mark.parametrize("level", ["forge", "plan"])
def test_ir_can_be_read_back(static_artifact: Path, tmp_path: Path, level: str):
    plain = forgec("inspect", static_artifact, "--ir", level)
    located = forgec("inspect", static_artifact, "--ir", level, "--locations")
    assert "loc(" not in plain.out
    assert '"model.py":10' in located.out
    (tmp_path / "located.mlir").write_text(located.out)
    assert forgec("opt", tmp_path / "located.mlir").out == plain.out
    assert forgec("opt", tmp_path / "located.mlir", "--print-locations").out == located.out
    assert forgec("inspect", static_artifact, "--ir", level, "--json").json == {"ir": {level: plain.out}}


def test_memory(static_artifact: Path):
    finished = forgec("inspect", static_artifact, "--memory")
    assert "memory of forward: arena " in finished.out
    assert "arena @0" in finished.out
    assert "external" in finished.out or "output" in finished.out
    assert "live bytes, at most " in finished.out


def test_memory_of_a_dynamic_artifact_has_formulas(dynamic_artifact: Path):
    finished = forgec("inspect", dynamic_artifact, "--memory")
    assert "arena sized at each call" in finished.out
    assert "s0 * 8" in finished.out
    data = forgec("inspect", dynamic_artifact, "--memory", "--json").json["memory"][0]
    assert data["arena_bytes"] is None
    assert data["live_bytes"] is None


def test_json(static_artifact: Path):
    data = forgec("inspect", static_artifact, "--json", "--memory").json
    assert data["manifest"]["entries"][0]["name"] == "forward"
    assert data["report"]["launches"] > 0
    (memory,) = data["memory"]
    assert memory["peak_bytes"] >= max(memory["live_bytes"])
    assert {"register", "kind", "nbytes", "offset", "first", "last"} <= memory["registers"][0].keys()


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (4_718_592, "4.72 MB"), (269_000_000, "269 MB"), (999_600, "1 MB")],
)
def test_sizes(nbytes: int, text: str):
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('%0 = a.b loc("l"("f"("m.py":6:0)))\n', "%0 = a.b\n"),
        ('%0 = a.b "x loc(y)" loc(unknown)', '%0 = a.b "x loc(y)"'),
        ('a.b loc(fused["m (1).py":1:0, callsite(unknown at unknown)]) c', "a.b c"),
        ('a.b loc("odd \\") name":1:2) c', "a.b c"),
        ("a.b loc(unclosed", "a.b"),
        ("no locations", "no locations"),
    ],
)
def test_removing_locations(text: str, expected: str):
    assert without_locations(text) == expected


def test_why_a_program_is_cut(tmp_path: Path):
    compiled = compiler.compile(lambda x: x.nonzero() * 2, (torch.ones(4, 3),))
    compiled.save(tmp_path / "cut.forge")
    finished = forgec("inspect", tmp_path / "cut.forge")
    assert "cut where the run tells the extent nonzero(x).0 at " in finished.out
    assert "test_inspect.py:" in finished.out


TILES = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()).eval()
example_inputs = (torch.randn(3, 8),)
"""


@pytest.fixture(scope="module")
def tile_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "net.py").write_text(TILES)
    finished = forgec("compile", folder / "net.py", "--target", "cpu:host", "-o", folder / "net.forge")
    assert finished.code == 0, finished.err
    return folder / "net.forge"


def test_kernels_of_tiles(tile_artifact: Path, tmp_path: Path):
    summary = forgec("inspect", tile_artifact).out
    assert "1 for x86-64-v" in summary
    assert "2 launches of them, 0 calls of ATen" in summary
    shown = forgec("inspect", tile_artifact, "--ir", "tile")
    assert "// 2 launches of linear; one: 432 FLOP" in shown.out, "3 rows, in a tile of as many"
    assert shown.out.count("tile.kernel @linear_") == 1
    assert shown.out.count("tile.launch @linear_") == 2
    assert "chosen" in shown.out
    (tmp_path / "located.mlir").write_text(forgec("inspect", tile_artifact, "--ir", "tile", "--locations").out)
    read = forgec("opt", tmp_path / "located.mlir").out
    assert read.splitlines() == [line for line in shown.out.splitlines() if not line.lstrip().startswith("//")]


def test_one_kernel_and_its_llvm(tile_artifact: Path):
    report = forgec("inspect", tile_artifact, "--json").json["report"]
    (kernel,) = report["kernels"]
    assert (kernel["launches"], report["kernel_calls"], kernel["flops"]) == (2, 2, 432)
    assert kernel["candidates"][0]["tiles"] == kernel["tiles"]
    alone = forgec("inspect", tile_artifact, "--ir", "tile", "--kernel", kernel["name"]).out
    assert "func.func" not in alone
    assert f"@{kernel['name']}(" in alone
    assert f"define i32 @{kernel['name']}(" in forgec("inspect", tile_artifact, "--ir", "llvm").out
    missing = forgec("inspect", tile_artifact, "--ir", "llvm", "--kernel", "other")
    assert "FORGE-U005" in missing.err
    assert kernel["name"] in missing.err


def test_the_llvm_is_that_of_the_artifacts_level(tile_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown = forgec("inspect", tile_artifact, "--ir", "llvm").out
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")  # another machine, which could not be a host
    host_level.cache_clear()
    assert forgec("inspect", tile_artifact, "--ir", "llvm").out == shown
    host_level.cache_clear()


def test_a_target_without_kernels_has_no_tiles(static_artifact: Path):
    assert "holds no IR of level 'tile'" in forgec("inspect", static_artifact, "--ir", "tile").err
    assert "--kernel is for --ir tile" in forgec("inspect", static_artifact, "--kernel", "x").err


def test_other_commands_take_the_target(tile_artifact: Path, tmp_path: Path):
    model = tile_artifact.with_name("net.py")
    assert forgec("verify", model, "--target", "cpu:host").code == 0
    assert forgec("verify", tile_artifact, "--input", "0=3x8xf32=1").code in (0, 1)
    found = forgec("bisect", model, "--target", "cpu:host", "-o", tmp_path)
    assert (found.code, found.out) == (0, "nothing differs by more than the tolerance\n")
