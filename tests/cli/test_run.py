import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import forgec

X = "x=2x3x8xf32=0.5"


def test_shows_results_and_the_first_call(static_artifact: Path):
    finished = forgec("run", static_artifact, "--input", X)
    assert (finished.code, finished.err) == (0, "")
    logits, total, bessel, first = finished.out.splitlines()
    assert logits.startswith("logits: f32[2, 3, 4], min ")
    assert total.startswith("rest[0]: f32[2, 3] = [[")
    assert bessel.startswith("rest[1]: f32[2, 3, 4], ")
    assert first.startswith("first call: ")


def test_saves_results(static_artifact: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.full((2, 3, 8), 0.5, np.float32))
    output = tmp_path / "out.npz"
    assert forgec("run", static_artifact, "-i", f"x=@{tmp_path}/x.npy", "-o", output).code == 0
    with np.load(output) as saved:
        assert {name: saved[name].shape for name in saved} == {
            "logits": (2, 3, 4),
            "rest[0]": (2, 3),
            "rest[1]": (2, 3, 4),
        }
        np.testing.assert_allclose(saved["logits"].sum(-1), 3 * saved["rest[0]"], rtol=1e-5)


def test_measures(static_artifact: Path):
    finished = forgec("run", static_artifact, "-i", X, "--warmup", 2, "--iterations", 5)
    assert "latency of 5 more calls in ms: median " in finished.out
    latency = forgec("run", static_artifact, "-i", X, "--iterations", 3, "--json").json["latency_ms"]
    assert latency["iterations"] == 3
    assert 0 < latency["min"] <= latency["median"] <= latency["max"]
    assert latency["min"] <= latency["mean"] <= latency["max"]


def test_json(static_artifact: Path):
    data = forgec("run", static_artifact, "-i", X, "--json").json
    assert [output["name"] for output in data["outputs"]] == ["logits", "rest[0]", "rest[1]"]
    assert data["outputs"][0] == {"name": "logits", "dtype": "f32", "shape": [2, 3, 4]}
    assert np.shape(data["outputs"][1]["value"]) == (2, 3)
    assert "latency_ms" not in data


def test_dynamic_extents_state_and_bfloat16(dynamic_artifact: Path, tmp_path: Path):
    output = tmp_path / "out.npz"
    finished = forgec("run", dynamic_artifact, "-i", "x=2x7xf32=0.5", "-o", output, "--iterations", 3)
    assert finished.code == 0
    with np.load(output) as saved:
        assert saved["output[0]"].dtype == np.float32
        assert saved["output[0]"].shape == (2, 7)
        np.testing.assert_allclose(saved["output[0]"], np.tanh(0.5) * np.tanh(1.5), rtol=1e-2)
        assert saved["output[1]"] == 1, "the results are those of the first call"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "FORGE-R001"),
        (["-i", "y=1xf32=0", "-i", X], "FORGE-R001"),
        (["-i", "x=2x3x8xf64=0"], "FORGE-R002"),
        (["-i", "x=2x4x8xf32=0"], "FORGE-R003"),
        (["-i", "x"], "FORGE-U005"),
        (["-i", "x=@no-such-file.npy"], "FORGE-U001"),
        (["-i", X, "-i", X], "FORGE-U005"),
        (["-i", X, "--entry", "backward"], "FORGE-U005"),
        (["-i", X, "-o", "no/such/folder/out.npz"], "FORGE-U004"),
    ],
)
def test_errors(static_artifact: Path, arguments: list[str], code: str):
    finished = forgec("run", static_artifact, *arguments)
    assert finished.code == 1
    assert finished.err.startswith(f"error[{code}]: ")
    assert finished.out == ""
    assert code in forgec("run", static_artifact, *arguments, "--json").error_codes


def test_extents_out_of_range(dynamic_artifact: Path):
    assert "FORGE-R004" in forgec("run", dynamic_artifact, "-i", "x=2x65xf32=0").err


def test_missing_inputs_are_named_with_what_the_artifact_takes(static_artifact: Path):
    finished = forgec("run", static_artifact, "-i", "xx=1xf32=0")
    assert "there is no input xx" in finished.err
    assert "did you mean x?" in finished.err
    assert "input x is missing" in finished.err
    assert "x: f32[2, 3, 8]" in finished.err


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_files_that_are_no_artifacts(command: str, tmp_path: Path, static_artifact: Path):
    content = static_artifact.read_bytes()
    middle = len(content) // 2
    cases = {
        "text": b"hello",
        "empty": b"",
        "truncated": content[:middle],
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
    }
    for name, damaged in cases.items():
        (tmp_path / name).write_bytes(damaged)
        finished = forgec(command, tmp_path / name)
        assert finished.code == 1, name
        assert finished.err.startswith("error[FORGE-A00"), name
        assert "Traceback" not in finished.err
    assert forgec(command, tmp_path / "missing").err.startswith("error[FORGE-U001]")


def test_nothing_is_written_when_a_call_fails(static_artifact: Path, tmp_path: Path):
    output = tmp_path / "out.npz"
    assert forgec("run", static_artifact, "-i", "x=1xf32=0", "-o", output).code == 1
    assert not output.exists()


def test_json_is_strict(dynamic_artifact: Path):
    finished = forgec("run", dynamic_artifact, "-i", "x=2x2xf32=nan", "--json")
    json.loads(finished.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
