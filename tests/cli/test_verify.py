import re
from pathlib import Path

import numpy as np
import pytest
import torch

from forgec.passes.registry import added_passes
from tests.cli import models
from tests.cli.command import forgec
from tests.verify import seeded

X = "x=2x3x8xf32=0.5"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``models.STATIC`` as a file."""
    (tmp_path / "model.py").write_text(models.STATIC)
    return tmp_path / "model.py"


def test_a_model_agrees_with_eager(model: Path):
    finished = forgec("verify", model)
    assert (finished.code, finished.err) == (0, "")
    first, *lines, last = finished.out.splitlines()
    assert first.startswith("compiled program against eager PyTorch, tolerance 2.1e-05 of the largest magnitude")
    assert last == "agrees: 3 tensors within the tolerance"
    assert any(re.search(r"^  ok    logits: largest difference .* allowed$", line) for line in lines)
    assert any("KL(eager ‖ compiled) mean " in line for line in lines)
    number = models.STATIC.splitlines().index("        h = torch.nn.functional.gelu(self.linear(x))") + 1
    assert any(re.search(rf"model\.py:{number} in Model\.forward", line) for line in lines)


def test_json(model: Path):
    data = forgec("verify", model, "--json", "--lines", 1).json
    assert data["agrees"] is True
    assert data["against"] == "eager"
    assert [output["name"] for output in data["outputs"]] == ["logits", "rest[0]", "rest[1]"]
    assert data["outputs"][0]["logits"].keys() == {"difference", "kl", "kl_max"}
    assert len(data["lines"]) == 1


def test_inputs_and_dtype(model: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.full((2, 3, 8), 0.5, np.float32))
    assert forgec("verify", model, "-i", f"x=@{tmp_path}/x.npy").code == 0
    narrow = forgec("verify", model, "--dtype", "bfloat16", "--json")
    assert narrow.code == 0
    assert narrow.json["tolerance"]["rtol"] == 3e-2


def test_an_artifact_is_compared_with_its_ir(static_artifact: Path):
    finished = forgec("verify", static_artifact, "--input", X)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith("compiled program against the float64 interpreter (on the IR after all passes)")
    assert "KL(float64 ‖ compiled)" in finished.out


def test_an_artifact_with_state_and_dynamic_extents(dynamic_artifact: Path):
    finished = forgec("verify", dynamic_artifact, "--input", "x=2x9xf32=0.25", "--json")
    assert finished.code == 0
    assert [(output["name"], output["kind"]) for output in finished.json["outputs"]] == [
        ("output[0]", "output"),
        ("output[1]", "output"),
        ("count", "state"),
    ]


def test_a_difference_is_an_error_with_a_hint(model: Path):
    with added_passes(seeded.seeded("gelu", seeded.gelu)):
        finished = forgec("verify", model, "-p", "seeded-gelu")
        as_json = forgec("verify", model, "-p", "seeded-gelu", "--json")
    assert finished.code == as_json.code == 1
    assert "  WRONG logits: " in finished.out
    assert finished.err.startswith("error[FORGE-V001]: the compiled program differs in logits, rest[0], rest[1]")
    assert f"'forgec bisect {model}'" in finished.err
    assert as_json.json["agrees"] is False


def test_other_tolerances(model: Path):
    assert forgec("verify", model, "--rtol", 1e-6).code == 0
    with added_passes(seeded.seeded("gelu", seeded.gelu)):
        assert forgec("verify", model, "-p", "seeded-gelu", "--atol", 0.1).code == 0
        assert forgec("verify", model, "-p", "seeded-gelu", "--rtol", 0.1).code == 0


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--dtype", "int8"], "FORGE-U005", "dtype is 'int8'"),
        (["--rtol", "-1"], "FORGE-U005", "rtol is -1.0"),
        (["--atol", "nan"], "FORGE-U005", "atol is nan"),
        (["--input", "y=2xf32=0"], "FORGE-R001", "there is no input y"),
        (["--input", "x=2x3x9xf32=0"], "FORGE-R003", "x"),
        (["--pipeline", "no-such-pass"], "FORGE-P001", "no-such-pass"),
        (["--entry", "nothing"], "FORGE-U002", "defines no 'nothing'"),
    ],
)
def test_bad_options(model: Path, options: list[str], code: str, text: str):
    finished = forgec("verify", model, *options)
    assert finished.code == 1
    assert f"error[{code}]" in finished.err
    assert text in finished.err
    assert forgec("verify", model, *options, "--json").error_codes[0] == code


def test_bad_subjects(static_artifact: Path, tmp_path: Path):
    assert "error[FORGE-U001]" in forgec("verify", tmp_path / "missing.py").err
    assert "error[FORGE-U001]" in forgec("verify", tmp_path / "missing.forge").err
    assert "error[FORGE-U001]" in forgec("verify", tmp_path).err
    content = static_artifact.read_bytes()
    (tmp_path / "cut.forge").write_bytes(content[: len(content) // 2])
    assert "error[FORGE-A001]" in forgec("verify", tmp_path / "cut.forge", "-i", X).err
    damaged = bytearray(content)
    place = content.index(b"ir/forge.mlir") + 200
    damaged[place] ^= 0xFF
    (tmp_path / "damaged.forge").write_bytes(bytes(damaged))
    assert "error[FORGE-A003]" in forgec("verify", tmp_path / "damaged.forge", "-i", X).err
    assert "error[FORGE-R001]: input x is missing" in forgec("verify", static_artifact).err
    assert "error[FORGE-U005]: --dtype is for models" in forgec("verify", static_artifact, "--dtype", "float32").err
    assert "error[FORGE-U005]: there is no entry e" in forgec("verify", static_artifact, "--entry", "e", "-i", X).err


def test_exported_programs(tmp_path: Path):
    inputs = (torch.randn(2, 3),)
    program = torch.export.export(torch.nn.Linear(3, 4), inputs)
    torch.export.save(program, tmp_path / "model.pt2")
    for command in ("verify", "bisect"):
        assert forgec(command, tmp_path / "model.pt2").code == 0
        assert forgec(command, tmp_path / "model.pt2", "--input", "input=2x3xf32=0.5").code == 0
        assert "FORGE-U005" in forgec(command, tmp_path / "model.pt2", "--dtype", "float64").err
    program.example_inputs = None
    torch.export.save(program, tmp_path / "bare.pt2")
    assert "error[FORGE-R001]: input input is missing" in forgec("verify", tmp_path / "bare.pt2").err
    assert forgec("verify", tmp_path / "bare.pt2", "--input", "input=2x3xf32=0.5").code == 0


def test_a_model_that_draws_random_numbers(tmp_path: Path):
    path = tmp_path / "random.py"
    path.write_text("import torch\nmodel = torch.nn.Dropout().train()\nexample_inputs = (torch.ones(4),)\n")
    for command in ("verify", "bisect"):
        assert "error[FORGE-V002]" in forgec(command, path).err
