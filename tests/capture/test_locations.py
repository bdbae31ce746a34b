"""Every op says where it came from: the user's file, line and function, and the path of the submodule."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgec.capture.places import portable_path
from forgec.diagnostics import Location
from forgec.ir.locations import from_attribute, location_of
from tests.oracle import Forms, assert_located, computations, lower

x = torch.randn(2, 4)


class Inner(nn.Module):
    """A submodule with a helper method."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def helper(self, a: torch.Tensor) -> torch.Tensor:
        return a.tanh()  # line of helper

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        b = self.norm(a)  # line of norm
        b = self.helper(b)
        return b.sin()  # line of sin


class Outer(nn.Module):
    """Two submodules in a list, a buffer, a free function."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Inner(), Inner()])
        self.register_buffer("total", torch.zeros(2, 4))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            a = layer(a)
        self.total.add_(a)  # line of add_
        return free(a) + self.total  # line of add


def free(a: torch.Tensor) -> torch.Tensor:
    """A function that is no method."""
    return a.exp()  # line of exp


def line_of(comment: str) -> int:
    """The line of this file that ends with a comment."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# line of {comment}"))


HERE = "tests/capture/test_locations.py"


@pytest.fixture(scope="module")
def outer() -> Forms:
    return Forms(Outer(), [x])


def places(forms: Forms, name: str) -> list[Location]:
    """The places of all ops of a name."""
    found = [location_of(op) for op in forms.captured.module.walk() if op.name == f"forge.{name}"]
    return [place for place in found if place is not None]


def test_an_op_has_file_line_function_and_module(outer: Forms) -> None:
    expected = [Location(HERE, line_of("sin"), "Inner.forward", f"layers.{i}") for i in (0, 1)]
    assert places(outer, "sin") == expected


def test_torch_s_own_modules_are_seen_at_the_user_s_line(outer: Forms) -> None:
    expected = [Location(HERE, line_of("norm"), "Inner.forward", f"layers.{i}.norm") for i in (0, 1)]
    assert places(outer, "layer_norm") == expected


def test_a_helper_method_is_named(outer: Forms) -> None:
    found = places(outer, "tanh")
    assert [place.module for place in found] == ["layers.0", "layers.1"]
    assert {(place.file, place.line) for place in found} == {(HERE, line_of("helper"))}
    assert all(place.function.endswith("helper") for place in found)


def test_a_free_function_is_named(outer: Forms) -> None:
    (place,) = places(outer, "exp")
    assert (place.file, place.line, place.function, place.module) == (HERE, line_of("exp"), "free", "")


def test_a_write_has_the_line_of_the_statement(outer: Forms) -> None:
    (place,) = places(outer, "state_write")
    assert (place.line, place.function) == (line_of("add_"), "Outer.forward")


def test_a_parameter_has_the_line_that_reads_it_first(outer: Forms) -> None:
    found = {place.module: place.line for place in places(outer, "param_ref")}
    assert found == {f"layers.{i}.norm": line_of("norm") for i in (0, 1)}
    (read,) = places(outer, "state_read")
    assert read.line == line_of("add_")


@pytest.mark.parametrize("pipeline", ["", "@O1", "@O2", "constant-fold", "cse", "canonicalize", "infer-shapes"])
def test_every_op_keeps_a_location(outer: Forms, pipeline: str) -> None:
    module = outer.optimized(pipeline)
    lowered = lower(module)
    for level, what in ((module, "forge"), (lowered, "plan")):
        assert_located(level, what)
        for op in computations(level):
            assert from_attribute(op.location), op
            assert all(place.file == HERE and place.line > 0 for place in from_attribute(op.location)), op


def test_no_path_is_absolute(outer: Forms) -> None:
    from forgec.api import print_module

    for module in (outer.captured.module, lower(outer.captured.module)):
        text = print_module(module, locations=True)
        assert "loc(" in text
        assert os.getcwd() not in text
        assert sys.prefix not in text
        assert 'loc("/' not in text


def test_a_lambda_has_a_line() -> None:
    forms = Forms(lambda a: a.cos(), [x])
    (place,) = places(forms, "cos")
    assert place.file == HERE
    assert place.line == inspect.currentframe().f_lineno - 3  # type: ignore[union-attr]


def test_a_file_outside_every_import_root_is_named_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "lonely.py"
    path.write_text("import torch\ndef model(a):\n    return a.cos()\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("lonely", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (place,) = places(Forms(module.model, [x]), "cos")
    assert (place.file, place.line) == ("lonely.py", 3)


def test_a_path_is_relative_to_the_deepest_root_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portable_path.cache_clear()
    root = tmp_path / "site" / "package"
    root.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert portable_path(str(root / "model.py")) == os.path.join("package", "model.py")
    portable_path.cache_clear()


def test_an_error_while_tracing_names_the_user_s_line() -> None:
    from forgec.diagnostics import ForgeError

    def broken(a: torch.Tensor) -> torch.Tensor:
        return a @ torch.ones(7, 7)  # line of error

    with pytest.raises(ForgeError) as raised:
        Forms(broken, [x])
    place = raised.value.diagnostics[0].location
    assert raised.value.code == "FORGE-C001"
    assert place is not None
    assert (place.file, place.line) == (HERE, line_of("error"))


def test_transformers_models_are_covered_whole() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=20
    )
    forms = Forms(LlamaModel(config).eval(), [torch.tensor([[1, 2, 3]])], {"use_cache": False})
    for pipeline in ("", "@O2"):
        module = forms.optimized(pipeline)
        for level in (module, lower(module)):
            assert_located(level, pipeline)
            for op in computations(level):
                place = location_of(op)
                assert place is not None
                assert place.file.startswith("transformers"), (op.name, place)
                assert place.line > 0
                assert not os.path.isabs(place.file)


def test_a_model_of_torch_alone_has_the_lines_of_its_modules_and_never_those_of_callers() -> None:
    """Neither this function's line nor a helper's, through which the model is compiled."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def through_a_helper() -> Forms:
        return Forms(nn.Sequential(layer, nn.Linear(8, 4)).eval(), [torch.randn(2, 3, 8)])

    for op in computations(through_a_helper().captured.module):
        place = location_of(op)
        assert place is not None
        assert place.file.startswith("torch/nn/modules/"), (op.name, place)
        assert place.function.endswith(".forward")
        assert place.module.split(".")[0] in ("0", "1")
