"""What cannot be captured: one clear error with its code and the user's line."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import forgec
from forgec.diagnostics import ForgeError
from tests.capture.compare import agree

x = torch.ones(2, 3)
HERE = "tests/capture/test_errors.py"


def refusal(function: Any, *args: Any, **options: Any) -> ForgeError:
    """The error that compiling ends in."""
    with pytest.raises(ForgeError) as raised:
        forgec.compile(function, args, **options)
    return raised.value


class Raising(nn.Module):
    """A model that raises."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        if a.dim() == 2:
            raise ValueError("the model wants rank 3")
        return a


def test_a_model_that_raises_is_reported_with_its_line() -> None:
    failure = refusal(Raising(), x)
    assert failure.code == "FORGE-C001"
    assert "ValueError" in str(failure)
    assert "the model wants rank 3" in str(failure)
    place = failure.diagnostics[0].location
    assert place is not None
    assert place.file == HERE
    assert place.function.endswith("forward")


def test_example_inputs_that_do_not_fit_the_signature() -> None:
    failure = refusal(Raising(), x, x, x)
    assert failure.code in ("FORGE-C001", "FORGE-C002")


def by_a_line(a: torch.Tensor) -> torch.Tensor:
    n = a.max().item()
    if n > 3:
        return a * 2
    return a


def by_an_expression(a: torch.Tensor) -> torch.Tensor:
    return a * 2 if (a > 0).sum().item() == 2 else a


def by_two_lines(a: torch.Tensor) -> torch.Tensor:
    n = a.max().item()
    bigger = (
        n
        > 3
    )  # fmt: skip
    return a * 2 if bool(bigger) else a


def by_several(a: torch.Tensor) -> torch.Tensor:
    n = a.max().item()
    return a * 2 if n > 3 else a if n > 5 else a + 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (by_a_line, "whether n > 3"),
        (by_an_expression, "whether (a > 0).sum().item() == 2"),
        (by_two_lines, "whether n > 3.0, where n depends on the data"),
        (by_several, "whether n > 3"),
    ],
)
def test_what_a_model_decides_by_is_said_in_its_words(model: Any, words: str) -> None:
    failure = refusal(model, x)
    assert failure.code == "FORGE-C001"
    assert words in failure.diagnostics[0].message
    assert not re.search(r"\bz?uf?\d|Eq\(", failure.diagnostics[0].message)
    assert "torch.cond" in str(failure.diagnostics[0].help)


def test_a_library_that_decides_by_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    text = "import torch\ndef choose(a):\n    return a if torch.is_tensor(a) and a.sum().item() > 3 else -a\n"
    (folder / "choosing_library.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    library = importlib.import_module("choosing_library")
    failure = refusal(lambda a: library.choose(a), x)
    assert "a.sum().item() > 3" in failure.diagnostics[0].message
    assert "in a library" in str(failure.diagnostics[0].help)


@pytest.mark.parametrize("inputs", [x, {"a": x}, "text", 3, {x}])
def test_example_inputs_of_the_wrong_kind(inputs: Any) -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(nn.Identity(), inputs)
    assert raised.value.code == "FORGE-C002"


def test_a_tensor_as_example_inputs_is_told_how_to_be_one() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(nn.Identity(), x)
    assert raised.value.diagnostics[0].help is not None
    assert "(x,)" in raised.value.diagnostics[0].help


@pytest.mark.parametrize("kwargs", [(x,), [x], x, "text"])
def test_example_kwargs_of_the_wrong_kind(kwargs: Any) -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(nn.Identity(), (), kwargs)
    assert raised.value.code == "FORGE-C002"


DATA_DEPENDENT: dict[str, Callable[..., Any]] = {
    "an extent from data": lambda a: torch.zeros(int(a.sum()), 2),
    "a branch on data": lambda a: a + 1 if a.sum() > 0 else a - 1,
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_what_depends_on_data_is_refused(name: str) -> None:
    failure = refusal(DATA_DEPENDENT[name], x)
    assert failure.code in ("FORGE-C001", "FORGE-C003")
    place = failure.diagnostics[0].location
    assert place is not None
    assert place.file == HERE


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.float8_e5m2fnuz])
def test_a_dtype_that_the_ir_does_not_have_is_refused(dtype: torch.dtype) -> None:
    assert refusal(lambda a: a.clone(), torch.zeros(3).to(dtype)).code == "FORGE-C004"


def test_a_dtype_inside_the_model_is_refused_at_its_line() -> None:
    failure = refusal(lambda a: a.to(torch.uint16).to(torch.float32), x)
    assert failure.code == "FORGE-C004"
    assert "uint16" in str(failure)
    place = failure.diagnostics[0].location
    assert place is not None
    assert place.file == HERE


def test_a_sparse_tensor_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failure = refusal(lambda a: a @ torch.ones(3, 2), x.to_sparse())
    assert failure.code in ("FORGE-C001", "FORGE-C004")


@pytest.mark.parametrize(
    "change",
    [lambda a: a.t_(), lambda a: a.unsqueeze_(0), lambda a: a.set_(a[0] * 2), lambda a: a.resize_(3, 2)],
    ids=["t_", "unsqueeze_", "set_", "resize_"],
)
def test_an_input_whose_own_shape_or_memory_would_change_is_refused(change: Callable[..., Any]) -> None:
    failure = refusal(lambda a: (change(a), a + 1)[1], x.clone())
    assert failure.code in ("FORGE-C001", "FORGE-C003")


def test_memory_beyond_that_of_a_tensor_is_refused() -> None:
    failure = refusal(lambda a: a.clone().resize_(7) + 1, x)
    assert failure.code == "FORGE-C003"
    assert "more memory than the tensor has" in str(failure)


def test_an_assignment_to_data_gives_new_memory() -> None:
    def assigning(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b, c = a.clone(), a * 2
        b.data = c[0]
        b.add_(1)
        return b, c

    agree(lambda: assigning, (x,))


class Assigning(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", torch.ones(3))
        self.weight = torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("name", ["held", "weight", "an input", "a dtype"])
def test_an_assignment_to_data_is_refused(name: str) -> None:
    class Model(Assigning):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            target = {"an input": a, "a dtype": a + 1}.get(name, getattr(self, name, a))
            target.data = (a * 2).to(torch.float16 if name == "a dtype" else a.dtype)
            return target * 2

    (found,) = refusal(Model(), x).diagnostics
    assert (found.code, found.location is not None) == ("FORGE-C003", True)
    assert "an assignment to .data" in found.message
    assert found.help is not None


@pytest.mark.parametrize("shape", [(2, 3, 1), (1,), (20, 3)])
def test_an_input_that_is_resized_is_refused(shape: tuple[int, ...]) -> None:
    def model(a: torch.Tensor) -> torch.Tensor:
        a.resize_(shape)
        return a + 1

    (found,) = refusal(model, x).diagnostics
    assert (found.code, found.location is not None) == ("FORGE-C003", True)
    assert "resize_" in found.message


def test_a_refused_export_leaves_the_model_as_it_was() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.held = [torch.zeros(2)]

        def forward(self, a: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            self.held[0].add_(1)
            raise RuntimeError("after two writes")

    model = Failing()
    assert refusal(model, x).code == "FORGE-C001"
    assert model.count.item() == 0
    assert model.held[0].tolist() == [0, 0]


def test_nothing_is_printed_or_warned_while_exporting(capfd: pytest.CaptureFixture[str]) -> None:
    refusal(DATA_DEPENDENT["an extent from data"], x)
    refusal(DATA_DEPENDENT["a branch on data"], x)
    forgec.compile(lambda a: a.add_(torch.tensor([1.0, 2.0, 3.0])), (x.clone(),))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
