from pathlib import Path

import pytest
import torch

import forgec as compiler
from forgec.cli.inspect_view import size
from forgec.cli.ir_text import without_locations
from tests.cli.command import forgec


def test_summary(static_artifact: Path):
    finished = forgec("inspect", static_artifact)
    assert (finished.code, finished.err) == (0, "")
    for text in (
        "target                  cpu",
        "pipeline                outline-layers",
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
