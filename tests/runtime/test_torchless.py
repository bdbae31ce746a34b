"""Artifacts whose launches are all machine code run where there is only numpy and ml_dtypes: with the same bits, shared
memory and errors as with torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from tests.runtime import torchless_calls as calls
from tests.runtime.packages import link_packages

SCRIPT = Path(calls.__file__)
HEAVY = {"torch", "xdsl", "llvmlite", "ortools", "typer", "rich", "platformdirs", "safetensors", "jinja2", "onnx"}


class Block(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.up = torch.nn.Linear(24, 48, dtype=dtype)
        self.norm = torch.nn.LayerNorm(48, dtype=dtype)
        self.down = torch.nn.Linear(48, 24, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.down(self.norm(torch.nn.functional.gelu(self.up(x)))), -1) + x


class Cache(torch.nn.Module):
    """Rows that calls append, and a count that is copied into the state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.ones(4, 6))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.index_copy_(0, self.count, x)
        self.count.add_(1)
        return self.rows.cumsum(0) * 2


class Views(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        product = x * 3 + 1
        return x[1:, ::2], product, product.t()


class Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return x.sum(0)


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def step(i: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return i + 1, y * 1.5 + 1

        chosen = torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))
        start = torch.zeros((), dtype=torch.int64)
        return torch.while_loop(lambda i, y: i < 3, step, (start, chosen))[1]


class Pick(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 8)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.table(index) * 2


class Falls(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x) + torch.linalg.det(x)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    found = tmp_path_factory.mktemp("torchless")
    link_packages(found / "packages", "numpy", "ml_dtypes")
    x = torch.randn(4, 6)
    batch = {0: forgec.Dim("batch", min=2, max=64)}
    models: dict[str, tuple[torch.nn.Module, torch.Tensor, Any]] = {
        "block": (Block(), torch.randn(64, 24), (batch,)),
        "bf16": (Block(torch.bfloat16), torch.randn(5, 24, dtype=torch.bfloat16), None),
        "cache": (Cache(), torch.randn(1, 6), None),
        "views": (Views(), x, None),
        "writes": (Writes(), x, None),
        "branches": (Branches(), x, None),
        "pick": (Pick(), torch.tensor([3, 9, 0]), None),
        "falls": (Falls(), torch.randn(4, 4), None),
    }
    for name, (model, example, dynamic) in models.items():
        compiled = forgec.compile(model.eval(), (example.clone(),), dynamic_shapes=dynamic, target="cpu:host")
        compiled.save(found / f"{name}.forge")
        is_half = example.dtype == torch.bfloat16
        array = example.view(torch.int16).numpy() if is_half else example.numpy()
        numpy.savez(found / f"{name}.npz", **{"x.bf16" if is_half else "x": array})
    for name, index in {"outside": 10, "below": -11}.items():
        (found / f"{name}.forge").symlink_to(found / "pick.forge")
        numpy.savez(found / f"{name}.npz", x=numpy.array([1, index, 2]))
    return found


def run(folder: Path, *names: str) -> dict[str, Any]:
    """What the cases return without torch; nothing of the compiler is imported."""
    command = [sys.executable, "-S", "-I", "-W", "error", str(SCRIPT), str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert not HEAVY & set(data["packages"])
    return data["results"]


def here(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> Any:
    """What a case returns in this process, which has torch."""
    monkeypatch.setattr(calls, "FOLDER", folder)
    function, _, case = name.partition(":")
    return json.loads(json.dumps(calls.described(getattr(calls, function)(case))))


CASES = (
    "batches:block",
    "together:block",
    "refused:block",
    "call:bf16",
    "sessions:cache",
    "shared:views",
    "written:writes",
    "call:branches",
    "call:pick",
    "fails:outside",
    "fails:below",
)


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return run(folder, *CASES)


@pytest.mark.parametrize("name", [name for name in CASES if name != "sessions:cache"])
def test_the_same_as_with_torch_in_the_process(
    folder: Path, found: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found[name] == here(monkeypatch, folder, name)


def bits(tensor: torch.Tensor) -> list[Any]:
    """A tensor as ``described`` writes arrays."""
    from forgec.runtime.arrays import to_array

    return calls.described(to_array(tensor.clone().contiguous()))


def example(folder: Path, name: str) -> torch.Tensor:
    (array,) = numpy.load(folder / f"{name}.npz").values()
    return torch.from_numpy(array).view(torch.bfloat16) if name == "bf16" else torch.from_numpy(array)


@pytest.mark.parametrize("name", ["bf16", "branches", "pick"])
def test_the_same_bits_as_for_tensors(folder: Path, found: dict[str, Any], name: str) -> None:
    result = forgec.load(folder / f"{name}.forge")(example(folder, name))
    assert isinstance(result, torch.Tensor)
    assert found[f"call:{name}"] == bits(result)


def test_extents_and_threads(folder: Path, found: dict[str, Any]) -> None:
    model, x = forgec.load(folder / "block.forge"), example(folder, "block")
    counts = (3, 40, 5, 40, 64, 3)
    assert found["batches:block"] == [bits(model(x[:count])) for count in counts]
    assert found["together:block"] == [bits(model(x[:count])) for count in [3, 17, 40, 64] * 3]


def test_sessions_own_their_state(folder: Path, found: dict[str, Any]) -> None:
    results, again, first, second, nbytes = found["sessions:cache"]
    model, x = forgec.load(folder / "cache.forge"), example(folder, "cache")
    one, two = model.session(), model.session()
    assert results == [bits(one(x)), bits(two(2 * x)), bits(one(x))]
    states = one.state_dict()
    assert first == {name: bits(state) for name, state in states.items()}
    assert len(first) == 2
    assert any(bits(torch.tensor([2])) == state for state in first.values())
    assert second == {name: bits(state) for name, state in two.state_dict().items()}
    assert again == results[0]
    assert nbytes == sum(state.nbytes for state in states.values())


def test_a_session_takes_tensors_and_arrays_in_turn(folder: Path, found: dict[str, Any]) -> None:
    session, x = forgec.load(folder / "cache.forge").session(), example(folder, "cache")
    first, second = session(x.numpy()), session(x)
    assert isinstance(first, numpy.ndarray)
    assert isinstance(second, torch.Tensor)
    assert [calls.described(first), bits(second)] == [found["sessions:cache"][0][0], found["sessions:cache"][0][2]]


def test_views_share_memory_as_in_eager_mode(found: dict[str, Any]) -> None:
    *_, strides = found["shared:views"]
    assert found["shared:views"][1:5] == [True] * 4
    assert strides == [[24, 8], [4, 24]]


def test_arguments_are_written(folder: Path, found: dict[str, Any]) -> None:
    (result, plain, other_result, other), codes = found["written:writes"]
    x = example(folder, "writes")
    assert plain == other == bits(x * 2)
    assert result == other_result
    assert [code.partition(":")[0] for code in codes] == ["error[FORGE-R008]"] * 2
    assert "the array is read-only" in codes[0]


def test_wrong_calls_are_refused_with_the_same_codes(found: dict[str, Any]) -> None:
    texts, results = found["refused:block"]
    codes = ["R001", "R001", "R001", "R002", "R002", "R003", "R003", "R004", "R001"]
    assert [text.partition("]")[0] for text in texts] == [f"error[FORGE-{code}" for code in codes]
    assert results[0] == results[1] == results[2] == results[3]
    assert results[4] != results[0]


@pytest.mark.parametrize("name", ["outside", "below"])
def test_checks_of_kernels_raise(folder: Path, found: dict[str, Any], name: str) -> None:
    text = found[f"fails:{name}"]
    assert text.startswith("error[FORGE-R014]: index out of range")
    with pytest.raises(ForgeError, match="FORGE-R014"):
        forgec.load(folder / f"{name}.forge")(example(folder, name))


def test_operations_of_torch_are_named(folder: Path) -> None:
    text = run(folder, "fails:falls")["fails:falls"]
    first, *notes = text.splitlines()
    assert first.startswith("error[FORGE-A006]: the plan calls")
    assert "ATen operations and torch cannot be imported: No module named 'torch'" in first
    assert any("it calls aten::" in note and "inv" in note for note in notes)
    assert "help: install torch" in text


def test_importing_and_loading_take_no_time(folder: Path) -> None:
    seconds = [run(folder, "cpu_seconds:block")["cpu_seconds:block"] for _ in range(4)]
    imported, resolved, loaded = (min(column) for column in zip(*seconds, strict=True))
    assert imported + resolved < 0.1
    assert loaded < 0.1


def test_no_argument_tells_the_library(folder: Path, tmp_path: Path) -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))

        def forward(self) -> torch.Tensor:
            return self.w * 2 + 1

    forgec.compile(Constant().eval(), (), target="cpu:host").save(folder / "constant.forge")
    numpy.savez(folder / "constant.npz")
    result = forgec.load(folder / "constant.forge")()
    assert isinstance(result, torch.Tensor)
    assert run(folder, "call:constant")["call:constant"] == bits(result)


def without_compiler(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command line where nothing that compiles can be imported."""
    code = (
        "import sys\n"
        "for name in ('torch', 'xdsl', 'llvmlite', 'ortools', 'onnx', 'safetensors', 'jinja2', 'platformdirs'):\n"
        "    sys.modules[name] = None\n"
        f"from forgec.cli import run; sys.exit(run({arguments!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_runs_artifacts_without_the_compiler(folder: Path) -> None:
    artifact = str(folder / "pick.forge")
    done = without_compiler(["run", artifact, "--input", "index=3xi64=1", "--iterations", "2"])
    assert done.returncode == 0, done.stderr
    assert "output: f32[3, 8]" in done.stdout
    done = without_compiler(["inspect", artifact])
    assert done.returncode == 0, done.stderr
    assert "cpu:" in done.stdout
    done = without_compiler(["run", str(folder / "falls.forge"), "--input", "x=4x4xf32=1"])
    assert done.returncode == 1
    assert "FORGE-A006" in done.stderr


@pytest.mark.parametrize("arguments", [["compile", "examples/mlp.py", "-o"], ["opt", "examples/mlp.py", "-o"]])
def test_the_command_line_says_that_the_compiler_is_missing(arguments: list[str], tmp_path: Path) -> None:
    done = without_compiler([*arguments, str(tmp_path / "out")])
    assert done.returncode == 1
    assert "error[FORGE-U008]" in done.stderr
    assert "help: pip install 'forgec[compiler]'" in done.stderr


def test_compiling_without_the_compiler(tmp_path: Path) -> None:
    packages = link_packages(tmp_path / "packages", "numpy", "ml_dtypes")
    code = (
        f"import sys; sys.path[:0] = [{str(packages)!r}]\n"
        "import forgec\n"
        "try: forgec.compile\n"
        "except forgec.ForgeError as reason: print(reason)"
    )
    text = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert text.startswith("error[FORGE-U008]: forgec.compile needs the compiler")
