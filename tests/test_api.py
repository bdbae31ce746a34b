"""``forgec.compile`` and what it returns."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import forgec
from forgec.api import load_model_file
from forgec.diagnostics.render import source_line


class Gated(torch.nn.Module):
    """A gated product, and a total of what passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(8, 8)
        self.total: torch.Tensor
        self.register_buffer("total", torch.zeros(8))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        y = x * torch.sigmoid(self.gate(x)) * scale
        self.total += y.sum(0)
        return y + self.total


def code_of(raised: pytest.ExceptionInfo[forgec.ForgeError]) -> str:
    return raised.value.code


def test_decorator_compiles_once_for_each_signature() -> None:
    @forgec.compile
    def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
        """Doc."""
        return x * factor

    x = torch.arange(6.0)
    assert torch.equal(scaled(x, 2.0), x * 2.0)
    assert torch.equal(scaled(x + 1, 2.0), (x + 1) * 2.0)
    assert (scaled.signatures, scaled.__doc__) == (1, "Doc.")
    assert torch.equal(scaled(x, 3.0), x * 3.0)
    assert torch.equal(scaled(x.double(), 3.0), x.double() * 3.0)
    assert scaled.signatures == 3


def test_the_number_of_signatures_is_bounded() -> None:
    @forgec.compile(max_signatures=2)
    def negated(x: torch.Tensor) -> torch.Tensor:
        return -x

    for size in (1, 2):
        assert torch.equal(negated(torch.ones(size)), -torch.ones(size))
    with pytest.raises(forgec.ForgeError) as raised:
        negated(torch.ones(3))
    assert code_of(raised) == "FORGE-C006"
    assert torch.equal(negated(torch.ones(2)), -torch.ones(2))


def test_module_without_example_inputs_compiles_at_the_first_call() -> None:
    model = torch.nn.Linear(4, 2).eval()
    lazy = forgec.compile(model)
    x = torch.randn(3, 4)
    assert torch.equal(lazy(x), model(x).detach())
    assert lazy.signatures == 1


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Scored:
    value: torch.Tensor
    score: torch.Tensor | None = None


torch.export.register_dataclass(Scored)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: {"a": x + 1, "b": [x, (x * 2, None)]},
        lambda x: Pair(x + 1, x * 2),
        lambda x: Scored(x + 1),
        lambda x: (x + 1, 3, "text", None, 2.5, True),
        lambda x: [x],
    ],
    ids=["dict", "named tuple", "dataclass", "literals", "list"],
)
def test_results_have_the_structure_of_the_models(function: Any) -> None:
    x = torch.randn(4)
    compiled = forgec.compile(function, (x,))
    actual, expected = compiled(x), function(x)
    assert type(actual) is type(expected)
    assert repr(actual) == repr(expected)


def test_state_belongs_to_sessions() -> None:
    model = Gated().eval()
    x = torch.randn(5, 8)
    compiled = forgec.compile(model, (x,))
    first, second = compiled.session(), compiled.session()
    with torch.no_grad():
        expected = [model(x), model(x)]
    assert torch.allclose(first(x), expected[0], atol=1e-6)
    assert torch.allclose(first(x), expected[1], atol=1e-6)
    assert torch.allclose(second(x), expected[0], atol=1e-6)


def test_fixed_arguments_are_part_of_the_program() -> None:
    compiled = forgec.compile(Gated().eval(), (torch.randn(5, 8),), {"scale": 2.0})
    with pytest.raises(forgec.ForgeError) as raised:
        compiled(torch.randn(5, 8), scale=3.0)
    assert code_of(raised) == "FORGE-R006"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"target": "abacus"}, "FORGE-U003"),
        ({"pipeline": "canonicalise"}, "FORGE-P001"),
        ({"pipeline": "@O9"}, "FORGE-P001"),
        ({"pipeline": "cse{"}, "FORGE-P002"),
        ({"pipeline": "constant-fold{size=3}"}, "FORGE-P002"),
        ({"fallback": "never"}, "FORGE-U005"),
        ({"threads": 10**6}, "FORGE-U005"),
    ],
)
def test_options_are_checked_before_anything_runs(options: dict[str, Any], code: str) -> None:
    def explode(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model must not run")

    with pytest.raises(forgec.ForgeError) as raised:
        forgec.compile(explode, (torch.ones(1),), **options)
    assert code_of(raised) == code


@pytest.mark.parametrize(
    ("model", "args", "code"),
    [
        (lambda x: x, torch.ones(2), "FORGE-C002"),
        (lambda x: x if x.sum() > 0 else -x, (torch.ones(2),), "FORGE-C001"),
        (lambda x: x @ torch.ones(5), (torch.ones(2),), "FORGE-C001"),
    ],
    ids=["a bare tensor", "data-dependent control flow", "the model raises"],
)
def test_models_that_cannot_be_captured(model: Any, args: Any, code: str) -> None:
    with pytest.raises(forgec.ForgeError) as raised:
        forgec.compile(model, args)
    assert code_of(raised) == code


def test_fallbacks_can_be_refused_all_at_once() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = torch.special.bessel_j0(x)
        return first, torch.cummax(x, 0)[0]

    compiled = forgec.compile(model, (torch.randn(4),))
    names = {fallback["op"] for fallback in compiled.report.to_dict()["fallbacks"]}
    assert names == {"aten::special_bessel_j0", "aten::cummax"}
    with pytest.raises(forgec.ForgeError) as raised:
        forgec.compile(model, (torch.randn(4),), fallback="error")
    diagnostics = raised.value.diagnostics
    assert [d.code for d in diagnostics] == ["FORGE-B001", "FORGE-B001"]
    assert all(d.location is not None and d.location.file.endswith("test_api.py") for d in diagnostics)


def test_ir_levels() -> None:
    compiled = forgec.compile(lambda x: x.exp(), (torch.ones(2),))
    assert "forge.exp" in compiled.ir("forge")
    assert 'plan.launch "aten::exp.out"' in compiled.ir("plan")
    assert "loc(" in compiled.ir("forge", locations=True)
    with pytest.raises(forgec.ForgeError):
        compiled.ir("llvm")


def test_same_model_same_bytes(tmp_path: Path) -> None:
    model, x = Gated().eval(), torch.randn(5, 8)
    for name in ("a", "b"):
        forgec.compile(model, (x,)).save(tmp_path / f"{name}.forge")
    assert (tmp_path / "a.forge").read_bytes() == (tmp_path / "b.forge").read_bytes()


def test_external_weights(tmp_path: Path) -> None:
    model, x = torch.nn.Linear(64, 64).eval(), torch.randn(2, 64)
    compiled = forgec.compile(model, (x,))
    compiled.save(tmp_path / "m.forge", external_weights=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.forge", "m.safetensors"]
    assert torch.equal(forgec.load(tmp_path / "m.forge")(x), compiled(x))


def test_a_tensor_passed_twice_is_two_inputs() -> None:
    x = torch.randn(3)
    compiled = forgec.compile(lambda a, b: a - 2 * b, (x, x))
    a, b = torch.randn(3), torch.randn(3)
    assert torch.equal(compiled(a, b), a - 2 * b)


class Remembering(torch.nn.Module):
    """Keeps its last input in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.last = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x
        return x + 1


def test_a_plain_attribute_that_changes_is_reported_and_restored() -> None:
    model = Remembering()
    with pytest.warns(forgec.ForgecWarning, match="'last'"):
        compiled = forgec.compile(model, (torch.ones(2),))
    assert [w.code for w in compiled.report.warnings] == ["FORGE-C007"]
    assert "'last'" in compiled.report.warnings[0].message
    assert model.last is None


def test_a_seed_that_the_model_sets_is_reported_with_its_line() -> None:
    def seeded(x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng():
            for _ in range(2):
                torch.manual_seed(3)  # seeds here
            return x + torch.rand(4)

    with pytest.warns(forgec.ForgecWarning, match="manual_seed"):
        (warning,) = forgec.compile(seeded, (torch.ones(4),)).report.warnings
    assert (warning.code, warning.severity) == ("FORGE-C008", "warning")
    assert "torch.manual_seed" in warning.message
    assert warning.location is not None
    assert "# seeds here" in (source_line(warning.location) or "")
    assert "forgec" not in torch.random.manual_seed.__code__.co_filename, "torch is as it was"


def test_random_operators_draw_as_eager_does() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(4) - torch.rand(4) + torch.nn.functional.dropout(x, 0.5)

    compiled = forgec.compile(noisy, (torch.ones(4),))
    torch.manual_seed(7)
    expected = noisy(torch.ones(4))
    torch.manual_seed(7)
    assert torch.equal(compiled(torch.ones(4)), expected)


def test_threads_share_a_compiled_model() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 32)).eval()
    compiled = forgec.compile(model, (torch.randn(4, 32),))
    inputs = [torch.randn(4, 32) for _ in range(8)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            if not torch.allclose(compiled(inputs[number]), expected[number], atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "FORGE-U001"),
        ("", "FORGE-U002"),
        ("model = 3", "FORGE-U002"),
        ("import torch\nmodel = torch.nn.ReLU()", "FORGE-U002"),
        ("import torch\nmodel = torch.nn.ReLU()\nexample_inputs = torch.ones(2)", "FORGE-C002"),
        ("raise ValueError('no')", "FORGE-U006"),
        ("def f(:", "FORGE-U006"),
        ("import sys; sys.exit(3)", "FORGE-U006"),
    ],
)
def test_model_files_that_are_none(content: str | None, code: str, tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(forgec.ForgeError) as raised:
        load_model_file(path)
    assert code_of(raised) == code


def test_model_files(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "import torch\n"
        "def model():\n    return torch.nn.ReLU()\n"
        "def other(x):\n    return x + 1\n"
        "example_inputs = (torch.ones(2),)\n"
    )
    assert isinstance(load_model_file(path).model, torch.nn.ReLU)
    source = load_model_file(path, "other")
    assert torch.equal(forgec.compile(source.model, source.example_inputs)(torch.ones(2)), torch.full((2,), 2.0))
    exported = torch.export.export(torch.nn.ReLU(), (torch.ones(2),))
    torch.export.save(exported, tmp_path / "m.pt2")
    compiled = forgec.compile(load_model_file(tmp_path / "m.pt2").model)
    assert torch.equal(compiled(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))
    (tmp_path / "bad.pt2").write_bytes(b"PK nonsense")
    with pytest.raises(forgec.ForgeError) as raised:
        load_model_file(tmp_path / "bad.pt2")
    assert code_of(raised) == "FORGE-U002"
