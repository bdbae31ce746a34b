import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli import models
from tests.cli.command import forgec

FORGEC = Path(sys.executable).with_name("forgec")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(models.STATIC)
    return path


def test_is_quiet_and_writes_one_file(model: Path, tmp_path: Path):
    finished = forgec("compile", model, "-o", tmp_path / "m.forge")
    assert (finished.code, finished.out, finished.err) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != "") == ["m.forge", "model.py"]


def test_json_prints_the_report(model: Path, tmp_path: Path):
    report = forgec("compile", model, "-o", tmp_path / "m.forge", "--json", "-p", "cse").json
    assert report["target"] == "cpu:aten"
    assert report["passes"][0]["name"] == "cse"
    assert report["fallbacks"][0]["op"] == "aten::special_i1"
    assert report["seconds"]["total"] > 0
    assert report["passes"][0]["bytes_moved_before"] >= report["passes"][0]["bytes_moved_after"] > 0


def test_times_and_gains_of_passes_go_to_standard_error(model: Path, tmp_path: Path, static_artifact: Path):
    finished = forgec("compile", model, "-o", tmp_path / "m.forge", "--time-passes")
    header, *rows = [line.split() for line in finished.err.splitlines()[1:]]
    assert header[1:] == ["seconds", "share", "ops", "launches", "FGR", "pass"]
    assert [row[-1] for row in rows][-3:] == ['lower-to-plan{target="cpu:aten"}', "allocate-buffers", "total"]
    assert finished.out == ""
    assert (tmp_path / "m.forge").read_bytes() == static_artifact.read_bytes()


def test_the_same_model_gives_the_same_bytes(model: Path, tmp_path: Path, static_artifact: Path):
    forgec("compile", model, "-o", tmp_path / "m.forge")
    assert (tmp_path / "m.forge").read_bytes() == static_artifact.read_bytes()


def test_external_weights_stand_beside_the_artifact(model: Path, tmp_path: Path):
    assert forgec("compile", model, "-o", tmp_path / "m.forge", "--external-weights").code == 0
    assert (tmp_path / "m.safetensors").exists()
    assert forgec("run", tmp_path / "m.forge", "-i", "x=2x3x8xf32=1").code == 0


def test_entry_names_the_model(tmp_path: Path):
    path = tmp_path / "several.py"
    path.write_text(models.STATIC.replace("model = ", "other = "))
    assert forgec("compile", path, "-o", tmp_path / "m.forge").code == 1
    assert forgec("compile", path, "-o", tmp_path / "m.forge", "--entry", f"{path}:other").code == 0


def test_exported_programs_are_models_too(tmp_path: Path):
    program = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.ones(1, 4),))
    torch.export.save(program, tmp_path / "linear.pt2")
    finished = forgec("compile", tmp_path / "linear.pt2", "-o", tmp_path / "m.forge")
    assert (finished.code, finished.err) == (0, "")


def test_dumps_and_verification(model: Path, tmp_path: Path):
    finished = forgec("compile", model, "-o", tmp_path / "m.forge", "--print-ir-after-all", "--verify-each")
    assert finished.code == 0
    assert "// -----// IR Dump After cse //----- //" in finished.err
    assert "forge.linear" in finished.err
    assert finished.out == ""


def test_fallbacks_can_be_refused(model: Path, tmp_path: Path):
    finished = forgec("compile", model, "-o", tmp_path / "m.forge", "--fallback", "error")
    assert finished.code == 1
    assert "error[FORGE-B001]: aten::special_i1" in finished.err
    assert "model.py:11 in Model.forward" in finished.err
    assert not (tmp_path / "m.forge").exists()


@pytest.mark.parametrize(("target", "code"), [("cpu:x86-64-v3", 0), ("cpu:aten", 1)])
def test_operations_with_kernels_are_no_fallbacks_to_refuse(tmp_path: Path, target: str, code: int):
    path = tmp_path / "empty.py"
    path.write_text(
        "import torch\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n"
        "        y = x.new_empty(2, 4)\n        y[:, :2], y[:, 2:] = x, x + 1\n        return y\n\n"
        "model, example_inputs = Model(), (torch.ones(2, 2),)\n"
    )
    finished = forgec("compile", path, "-o", tmp_path / "m.forge", "--fallback", "error", "--target", target)
    assert finished.code == code
    assert ("aten::new_empty" in finished.err) == bool(code)


@pytest.mark.parametrize(
    ("source", "arguments", "code"),
    [
        (None, [], "FORGE-U001"),
        ("x = 1\n", [], "FORGE-U002"),
        ("model = 1 / 0\n", [], "FORGE-U006"),
        ("def f(:\n", [], "FORGE-U006"),
        ("import torch\nmodel = torch.nn.ReLU()\nexample_inputs = torch.ones(1)\n", [], "FORGE-C002"),
        (models.STATIC, ["--target", "tpu"], "FORGE-U003"),
        (models.STATIC, ["--pipeline", "no-such-pass"], "FORGE-P001"),
        (models.STATIC, ["--pipeline", "cse{no-option=1}"], "FORGE-P002"),
        (models.STATIC, ["--entry", "no_such_name"], "FORGE-U002"),
        (models.STATIC.replace("self.linear(x)", "self.linear(x[0, :2, :4])"), [], "FORGE-C001"),
    ],
)
def test_errors(source: str | None, arguments: list[str], code: str, tmp_path: Path):
    path = tmp_path / "model.py"
    if source is not None:
        path.write_text(source)
    finished = forgec("compile", path, "-o", tmp_path / "m.forge", *arguments)
    assert finished.code == 1
    assert finished.err.startswith(f"error[{code}]: ")
    assert "Traceback" not in finished.err
    as_json = forgec("compile", path, "-o", tmp_path / "m.forge", *arguments, "--json")
    assert (as_json.code, as_json.error_codes[0]) == (1, code)
    assert not list(tmp_path.glob("*.forge")), "no partial file"


@pytest.mark.parametrize("output", ["no/such/folder/m.forge", "."])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(output: str, tmp_path: Path):
    finished = forgec("compile", "no-such-model.py", "-o", tmp_path / output)
    assert finished.code == 1
    assert finished.err.startswith("error[FORGE-U004]: ")


def test_an_existing_artifact_survives_a_failure(tmp_path: Path):
    (tmp_path / "model.py").write_text("model = 1 / 0\n")
    (tmp_path / "m.forge").write_text("precious")
    assert forgec("compile", tmp_path / "model.py", "-o", tmp_path / "m.forge").code == 1
    assert (tmp_path / "m.forge").read_text() == "precious"


def test_fallback_takes_two_values(model: Path):
    assert forgec("compile", model, "-o", "m.forge", "--fallback", "maybe").code == 2


def test_progress_on_a_terminal(model: Path, tmp_path: Path):
    controller, terminal = pty.openpty()
    command = [FORGEC, "compile", model, "-o", tmp_path / "m.forge"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # how a terminal says that its last writer has gone
                break
            if not piece:
                break
            shown += piece
    os.close(controller)
    assert process.returncode == 0
    text = shown.decode()
    assert "loading the model" in text
    assert "writing the artifact" in text
    assert "m.forge: " in text
    assert "1 fallbacks" in text


REMEMBERING = """
import torch

class Remembering(torch.nn.Module):
    last = None

    def forward(self, x):
        self.last = x
        return x + 1

model = Remembering()
example_inputs = (torch.ones(2),)
"""


def test_what_the_model_changes_is_printed_once(tmp_path: Path):
    path = tmp_path / "remembering.py"
    path.write_text(REMEMBERING)
    finished = forgec("compile", path, "-o", tmp_path / "m.forge")
    assert finished.code == 0
    assert finished.err.count("FORGE-C007") == finished.err.count("'last'") == 1
    assert "ForgecWarning" not in finished.err


def test_products_of_float32_may_round_what_they_multiply(model: Path, tmp_path: Path):
    finished = forgec("compile", model, "-o", tmp_path / "m.forge", "--target", "cpu", "--precision", "bf16", "--json")
    assert finished.code == 0
    assert json.loads(finished.out)["precision"] == "bf16"
    shown = forgec("inspect", tmp_path / "m.forge").out
    assert "factors of products are rounded to bf16" in shown
    assert "x86-64-v4 with avx512bf16" in " ".join(shown.split())
    refused = forgec("compile", model, "-o", tmp_path / "m.forge", "--target", "cpu:aten", "--precision", "bf16")
    assert refused.code == 1
    assert "FORGE-U005" in refused.err
