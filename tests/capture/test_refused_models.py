"""What users bring and forgec cannot take: one diagnostic each, which says what to do; and what it warns of."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan as torch_scan

import forgec
from forgec.diagnostics import ForgeError

x34 = torch.arange(12.0).reshape(3, 4)


def refusal(model: Any, *args: Any) -> ForgeError:
    """The error that compiling ends in: one diagnostic."""
    with pytest.raises(ForgeError) as raised:
        forgec.compile(model, args)
    assert len(raised.value.diagnostics) == 1
    return raised.value


def line_of(failure: ForgeError) -> int:
    """The line that the diagnostic is about."""
    place = failure.diagnostics[0].location
    assert place is not None
    return place.line


def first_line(function: Any) -> int:
    """The line after a function's head."""
    return function.__code__.co_firstlineno + 1


class Odd:
    """A class that torch does not know."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Pair(tuple[Any, ...]):
    """A tuple of another class."""

    __slots__ = ()


INPUTS: dict[str, tuple[Any, str]] = {
    "a dtype": (torch.float64, "functools.partial"),
    "a device": (torch.device("cpu"), "functools.partial"),
    "a complex number": (1 + 2j, "functools.partial"),
    "an array": (x34.numpy(), "torch.from_numpy"),
    "a number of numpy's": (numpy.float32(1), "torch.from_numpy"),
    "an unknown object": (Odd(x34), "dataclasses"),
    "a tuple of another class": (Pair((x34,)), "dataclasses"),
    "a set": ({1, 2}, "dataclasses"),
    "a packed sequence": (nn.utils.rnn.pack_sequence([x34, x34[:2]]), "padded tensor"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_inputs_of_other_types(what: str) -> None:
    value, remedy = INPUTS[what]
    failure = refusal(lambda x, y: x + 1, x34, value)
    assert failure.code == "FORGE-C004"
    assert "an example input is a " in str(failure)
    assert remedy in str(failure)


OUTPUTS: dict[str, Any] = {
    "an unknown object": lambda x: Odd(x),
    "a tuple of another class": lambda x: Pair((x,)),
    "a generator": lambda x: (row for row in [x, x]),
    "a dtype": lambda x: (x, x.dtype),
    "a slice": lambda x: slice(0, x.shape[0]),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_of_other_types(what: str) -> None:
    failure = refusal(OUTPUTS[what], x34)
    assert failure.code == "FORGE-C004"
    assert "an output is a " in str(failure)


def test_a_lazy_module_without_shapes() -> None:
    failure = refusal(nn.Sequential(nn.LazyLinear(3)), x34)
    assert failure.code == "FORGE-C001"
    assert "the submodule '0' is lazy" in str(failure)


@pytest.mark.filterwarnings("ignore")
def test_modules_of_torchscript() -> None:
    scripted = torch.jit.script(nn.Linear(4, 4))
    for model in (scripted, nn.Sequential(scripted), torch.jit.trace(nn.Linear(4, 4), x34)):
        failure = refusal(model, x34)
        assert failure.code == "FORGE-C001"
        assert "TorchScript module" in str(failure)
    assert "TorchScript" in str(refusal(torch.jit.script(torch.nn.functional.relu), x34))


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules() -> None:
    failure = refusal(torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4))), x34)
    assert failure.code == "FORGE-C001"
    assert "before it is quantized" in str(failure)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_gradients_inside_the_model(transform: Any) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return transform(lambda y: (y**2).sum())(x)

    failure = refusal(model, x34)
    assert failure.code == "FORGE-C003"
    assert "torch.func" in str(failure)
    assert line_of(failure) == first_line(model)


def test_a_decision_by_data() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x

    failure = refusal(model, x34)
    assert failure.code == "FORGE-C001"
    assert "the model decides by data" in str(failure)
    assert "torch.cond" in str(failure)
    assert line_of(failure) == first_line(model)


@pytest.mark.parametrize("loop", [lambda x: torch_map(lambda row: row + 1, x), lambda x: torch_scan(_add, x[0], x)])
def test_a_loop_over_as_many_rows_as_only_the_run_tells(loop: Any) -> None:
    failure = refusal(lambda x: loop(x[x[:, 0] > 0]), x34)
    assert failure.code == "FORGE-C001"
    assert "as many rows as only the run tells" in str(failure)
    assert "loop over all rows" in str(failure)


def _add(carry: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return carry + row, carry * row


def test_parameters_on_meta_are_refused() -> None:
    with pytest.raises(ForgeError):
        forgec.compile(nn.Linear(4, 4, device="meta"), (x34,))(x34)


class Counting(nn.Module):
    """Changes attributes that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.total = torch.zeros(3, 4)
        self.seen: list[torch.Tensor] = []
        self.by_name: dict[str, int] = {}
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.number += 1
        self.total = self.total + x
        self.seen.append(x)
        self.by_name["calls"] = self.number
        self.last = x
        return self.total * self.number


def test_changed_attributes_are_state_or_warned_of_and_restored() -> None:
    """Numbers and tensors are state. The others the compiled program does not change, and neither does capture."""
    model = Counting()
    total = model.total
    with pytest.warns(forgec.ForgecWarning):
        compiled = forgec.compile(model, (x34,))
    warned = {w.message.split("'")[1] for w in compiled.report.warnings if w.code == "FORGE-C007"}
    assert warned == {"seen", "by_name", "last"}
    assert (model.number, model.seen, model.by_name, model.last) == (0, [], {}, None)
    assert model.total is total
    session = compiled.session()
    assert [torch.equal(session(x34), factor * x34) for factor in (1, 4, 9)] == [True] * 3


class Branching(nn.Module):
    """Writes its buffer in one branch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def counted(value: torch.Tensor) -> torch.Tensor:
            self.total.add_(value)
            return value + 1

        return torch.cond(x.sum() > 0, counted, lambda value: value - 1, (x,))


def test_a_branch_that_writes_a_buffer() -> None:
    failure = refusal(Branching(), x34)
    assert failure.code == "FORGE-C005"
    assert "writes 'total'" in str(failure)
    assert "yield the new value from every branch" in str(failure)
    assert line_of(failure) == first_line(Branching.forward) + 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.t_() + 1,
        lambda x: x.unsqueeze_(0) + 1,
        lambda x: x.transpose_(0, 1) + 1,
        lambda x: x.set_(x[0]) + 1,
        lambda x: x.resize_(2, 2) + 1,
    ],
)
def test_an_input_of_another_shape(function: Any) -> None:
    failure = refusal(function, x34)
    assert failure.code == "FORGE-C003"
    assert "changes the shape or memory" in str(failure)
    assert "a name of its own" in str(failure)
    assert line_of(failure) == function.__code__.co_firstlineno


def test_results_that_torch_could_be_told_about() -> None:
    assert "register_pytree_node" in str(refusal(lambda x: Odd(x), x34))
    transformers = pytest.importorskip("transformers")
    failure = refusal(lambda x: transformers.DynamicCache(), x34)
    assert failure.code == "FORGE-C004"
    assert "use_cache=False" in str(failure)


def test_an_input_of_a_dtype_that_torch_hardly_has() -> None:
    failure = refusal(lambda x, y: y, x34, torch.zeros(3, dtype=torch.uint16))
    assert "it is the input 'y'" in str(failure)
    assert "keep them as int32, which holds them all" in str(failure)
