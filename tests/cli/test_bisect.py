import re
from pathlib import Path

import pytest

from forgec.passes.registry import added_passes
from tests.cli import models
from tests.cli.command import forgec
from tests.verify import seeded

IR = """\
func.func @forward(%x : tensor<3x4xf32>, %y : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %0 = forge.exp %x : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.sub %0, %y : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %2 = forge.tanh %1 : (tensor<3x4xf32>) -> tensor<3x4xf32>
  func.return %2 : tensor<3x4xf32>
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``models.STATIC`` as a file."""
    (tmp_path / "model.py").write_text(models.STATIC)
    return tmp_path / "model.py"


def test_nothing_differs(model: Path):
    finished = forgec("bisect", model)
    assert (finished.code, finished.out) == (0, "nothing differs by more than the tolerance\n")
    assert forgec("bisect", model, "--json").json == {"differs": False}


def test_the_pass_the_op_the_line_and_a_reproducer(model: Path, tmp_path: Path):
    with added_passes(seeded.seeded("gelu", seeded.gelu)):
        finished = forgec("bisect", model, "-p", "seeded-gelu,@O2", "-o", tmp_path / "out")
        assert finished.code == 1
        assert finished.err.startswith("error[FORGE-P004]: pass seeded-gelu changed what the program computes\n")
        number = models.STATIC.splitlines().index("        h = torch.nn.functional.gelu(self.linear(x))") + 1
        assert re.search(rf"--> .*model\.py:{number} in Model\.forward", finished.err)
        assert "op: forge.gelu, its result: " in finished.err
        (written,) = (tmp_path / "out").iterdir()
        first, second, third, *_ = written.read_text().splitlines()
        assert first == "// RUN: forgec opt %s -p seeded-gelu"
        assert second == "// FORGE-P004: pass seeded-gelu changed what the program computes"
        assert third == f"// forgec bisect {written.name} -p seeded-gelu"
        opt = forgec("opt", written, "-p", "seeded-gelu")
        assert opt.code == 0
        assert 'approximate "tanh"' in opt.out
        again = forgec("bisect", written, "-p", "seeded-gelu", "-o", tmp_path, "--json")
    assert again.code == 1
    assert again.json["differs"] is True
    assert (again.json["pass"], again.json["ops"]) == ("seeded-gelu", ["forge.gelu"])


def test_ir_text(tmp_path: Path):
    (tmp_path / "graph.mlir").write_text(IR)
    assert forgec("bisect", tmp_path / "graph.mlir", "-p", "@O2,lower-to-plan,allocate-buffers").code == 0
    assert forgec("bisect", tmp_path / "graph.mlir").code == 0
    with added_passes(seeded.seeded("sub", seeded.sub_operands)):
        finished = forgec(
            "bisect", tmp_path / "graph.mlir", "-p", "cse,seeded-sub", "-o", tmp_path / "out", "--seed", 7
        )
    assert finished.code == 1
    assert "graph.mlir:3" in finished.err
    assert "pass 2 of those that ran: seeded-sub" in finished.err


def test_inputs_of_ir_text_decide(tmp_path: Path):
    (tmp_path / "graph.mlir").write_text(IR)
    options = ("-o", tmp_path / "out", "-i", "x=3x4xf32=0")
    with added_passes(seeded.seeded("sub", seeded.sub_operands)):
        same = forgec("bisect", tmp_path / "graph.mlir", "-p", "seeded-sub", *options, "-i", "y=3x4xf32=1")
        other = forgec("bisect", tmp_path / "graph.mlir", "-p", "seeded-sub", *options, "-i", "y=3x4xf32=2")
    assert (same.code, other.code) == (0, 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--dtype", "complex"], "FORGE-U005"),
        (["--rtol", "-0.5"], "FORGE-U005"),
        (["--data", "x.safetensors"], "FORGE-U005"),
        (["-p", "canonicalize,,cse"], "FORGE-P002"),
        (["--input", "nobody=1xf32=0"], "FORGE-R001"),
    ],
)
def test_bad_options(model: Path, options: list[str], code: str):
    assert f"error[{code}]" in forgec("bisect", model, *options).err


def test_bad_subjects(tmp_path: Path):
    assert "error[FORGE-U001]" in forgec("bisect", tmp_path / "missing.py").err
    (tmp_path / "bad.mlir").write_text("func.func @f( {")
    assert "error[FORGE-I001]" in forgec("bisect", tmp_path / "bad.mlir").err
    (tmp_path / "empty.mlir").write_text("")
    assert "has no public function" in forgec("bisect", tmp_path / "empty.mlir").err
    (tmp_path / "graph.mlir").write_text(IR)
    graph = tmp_path / "graph.mlir"
    assert "error[FORGE-U001]" in forgec("bisect", graph, "--data", tmp_path / "none.safetensors").err
    assert "error[FORGE-U005]: --dtype is for models" in forgec("bisect", graph, "--dtype", "float32").err
    assert "error[FORGE-U004]" in forgec("bisect", graph, "-o", graph).err
    assert "error[FORGE-R001]: there is no argument z" in forgec("bisect", graph, "-i", "z=1xf32=0").err
    assert "error[FORGE-R003]" in forgec("bisect", graph, "-i", "x=2x4xf32=0").err
    (tmp_path / "model.txt").write_text("x")
    assert "error[FORGE-U002]" in forgec("bisect", tmp_path / "model.txt").err
