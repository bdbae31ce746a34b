"""Programs of torch.export: saved and loaded, decomposed, with regions that run under other settings of torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

import forgec
from forgec.capture.places import place_of
from tests.capture.compare import eager_calls, op_names, states_of
from tests.oracle import Forms, assert_equal, lower, tensor_leaves

x34 = torch.arange(12.0).reshape(3, 4) / 10


class Totalling(nn.Module):
    """Weights, and a buffer that is written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(3, 4))


class Counting(Totalling):
    """The buffer written through a view, a counter, a lifted constant, an input that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, *, scale: float = 2.0) -> dict[str, Any]:
        self.count += 1
        view = self.total.t()[1:]
        y = self.linear(x) * scale
        view.add_(y.t()[1:])
        x[0] = 0
        return {
            "y": y,
            "view": view,
            "count": self.count * 1,
            "constant": torch.tensor([1.0, 2.0]) + 1,
            "nothing": None,
        }


class Regions(Totalling):
    """Code under no_grad, enable_grad and disabled autocast, with views that cross their borders."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            y = self.linear(x)
            self.total.add_(y)
            view = self.total[1:]
        with torch.autocast("cpu", enabled=False):
            z = self.linear(view)
        view.mul_(2)
        with torch.set_grad_enabled(True):
            w = self.linear(y).relu()
        return y, z, w, view


class Cast(Totalling):
    """Autocast inside the model."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = self.linear(x) @ x.t()
        self.total.add_(1)
        return z, z.float().softmax(-1)


MODELS: list[Callable[[], nn.Module]] = [Counting, Regions, Cast]


def quietly(function: Callable[..., Any], *args: Any) -> Any:
    """What torch returns, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def exported(model: nn.Module) -> ExportedProgram:
    """As a user exports: with gradients enabled."""
    return quietly(torch.export.export, model, (x34.clone(),))


def saved(program: ExportedProgram, folder: Path) -> ExportedProgram:
    """The program saved to a file and loaded again."""
    path = folder / "model.pt2"
    quietly(torch.export.save, program, path)
    return quietly(torch.export.load, path)


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The functional form, whose writes are outputs."""
    return quietly(program.run_decompositions, {})


def check(program: ExportedProgram, make: Callable[[], nn.Module]) -> Forms:
    """Two calls of the compiled program against two calls of the model."""
    expected = eager_calls(make(), [x34], {}, 2)
    forms = Forms(program)
    for pipeline in ("", "@O2"):
        session = forms.program(lower(forms.optimized(pipeline))).session()
        for results, inputs, held, _ in expected:
            x = x34.clone()
            assert_equal([t.clone() for t in tensor_leaves(session(x))], results, pipeline)
            assert_equal([x], inputs, f"{pipeline}: inputs")
            for name, state in session.state_dict().items():
                assert_equal([state], [held[name]], f"{pipeline}: state {name}")
    return forms


@pytest.mark.parametrize("make", MODELS)
def test_an_exported_program_gives_what_the_model_gives(make: Callable[[], nn.Module]) -> None:
    forms = check(exported(make()), make)
    assert "total" in [info.name for info in states_of(forms.captured.module)]


@pytest.mark.parametrize("make", MODELS)
def test_a_saved_program_gives_what_the_model_gives(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    check(saved(exported(make()), tmp_path), make)


@pytest.mark.parametrize("make", MODELS)
def test_a_decomposed_program_gives_what_the_model_gives(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    program = decomposed(exported(make()))
    mutations = [s.kind.name for s in program.graph_signature.output_specs if s.kind.name.endswith("MUTATION")]
    assert "BUFFER_MUTATION" in mutations
    check(program, make)
    check(saved(program, tmp_path), make)


def test_a_decomposed_program_that_writes_a_parameter() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.weight.add_(x)
            return self.weight * 2

    program = decomposed(exported(Trained()))
    assert [s.kind.name for s in program.graph_signature.output_specs] == ["PARAMETER_MUTATION", "USER_OUTPUT"]
    forms = check(program, Trained)
    assert [info.name for info in states_of(forms.captured.module)] == ["weight"]


def test_views_of_a_saved_program_still_alias(tmp_path: Path) -> None:
    """A loaded graph has lost what tracing saw; the schemas and types must do."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.arange(12.0).reshape(3, 4))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            dropped = torch.nn.functional.dropout(self.total, 0.5, training=False)
            dropped.add_(x)
            flat = self.total.t().contiguous().view(-1)
            flat.zero_()
            same = self.total.contiguous().reshape(4, 3).to(torch.float32)
            same[1] = 9
            copied = self.total.to(torch.float32, copy=True)
            copied.zero_()
            first, second = self.total.split(2)
            second.mul_(3)
            self.total.diagonal().fill_(-1)
            return dropped, flat, same, copied, first, second, self.total * 1

    check(exported(Views()), Views)
    check(saved(exported(Views()), tmp_path), Views)


def test_a_program_with_dynamic_extents_is_loaded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    rows = torch.export.Dim("rows", min=2, max=9)
    program = torch.export.export(model, (x34,), dynamic_shapes=({0: rows},))
    forms = Forms(saved(program, tmp_path))
    compiled = forms.program(lower(forms.optimized("@O2")))
    for count in (2, 5, 9):
        x = torch.randn(count, 4)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-6)


def test_the_lines_of_a_saved_program_survive(tmp_path: Path) -> None:
    program = saved(exported(Counting()), tmp_path)
    node = next(n for n in program.graph.nodes if n.target is torch.ops.aten.linear.default)
    place = place_of(node)
    assert place.file == "tests/capture/test_exported_programs.py"
    assert (place.function, place.module) == ("Counting.forward", "linear")


def test_compile_takes_an_exported_program() -> None:
    compiled = forgec.compile(exported(nn.Linear(4, 2)), pipeline="")
    assert compiled(x34).shape == (3, 2)


def test_keyword_and_positional_calls_of_a_loaded_program(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - 2 * b

    program = saved(torch.export.export(Two(), (x34,), {"b": x34 + 1}), tmp_path)
    compiled = forgec.compile(program)
    for found in (compiled(x34, b=x34 + 1), compiled(a=x34, b=x34 + 1)):
        assert_equal([found], [x34 - 2 * (x34 + 1)])


def test_attention_stays_whole_unless_decomposed() -> None:
    class Attention(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(q, q, q)

    forms = Forms(Attention(), [torch.randn(1, 2, 5, 4)])
    assert op_names(forms.captured.module) == ["forge.attention", "func.return"]
