"""What a model's Python code keeps from call to call: state of a session, or refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.diagnostics.render import source_line
from forgec.runtime.plan import State
from tests.capture.python_models import Forward, Model, warned, x34

N = 0


class Tally:
    """Used by name only."""

    total = 0


def _fills_and_uses(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.h is None:
        self.h = x.mean(0)
    return x + self.h


def _counts(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = 1 if self.h is None else self.h + 1
    return x + self.h


def _fills_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.absent = x * 2 if self.absent is None else self.absent + x
    return self.absent


def _uses_a_global(self: Any, x: torch.Tensor) -> torch.Tensor:
    global N
    N += 1
    return x + N


def _uses_a_class(self: Any, x: torch.Tensor) -> torch.Tensor:
    Tally.total += 1
    return x + Tally.total


def _decides_by_a_number(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h += 1
    return x * 2 if self.h > 3 else x


def _repeats(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h += 1
    for _ in range(self.h):
        x = x + 1
    return x


def _decides_late(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h.append(1)
    return x * 2 if len(self.h) > 30 else x


def _decides_late_by_a_global(self: Any, x: torch.Tensor) -> torch.Tensor:
    global N
    N += 1
    return x * 2 if N > 30 else x


def _collects(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = [*self.h, x]
    return torch.cat(self.h).sum()


def _grows(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = torch.cat((self.h, x))
    return self.h.sum()


def _switches(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = not self.h
    return x * 2 if self.h else x


REFUSED: dict[str, tuple[Forward, Any, str, str]] = {
    "None to a tensor": (_fills_and_uses, None, "'h'", "self.h = x.mean(0)"),
    "None to a number": (_counts, None, "'h'", "self.h = 1 if"),
    "a buffer that was None": (_fills_buffer, None, "'absent'", "self.absent = "),
    "a global": (_uses_a_global, None, "'N'", "N += 1"),
    "an attribute of a class": (_uses_a_class, None, "'Tally.total'", "Tally.total += 1"),
    "a number that decides": (_decides_by_a_number, 0, "'h'", "if self.h > 3"),
    "a number that repeats": (_repeats, 0, "'h'", "range(self.h)"),
    "a list that decides late": (_decides_late, [], "'h'", "self.h"),
    "a global that decides late": (_decides_late_by_a_global, None, "'N'", "N += 1"),
    "a list": (_collects, [], "'h'", "self.h = [*self.h, x]"),
    "a tensor that grows": (_grows, torch.zeros(1, 4), "'h'", "self.h = torch.cat"),
    "a truth": (_switches, False, "'h'", "self.h = not self.h"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_later_calls_would_compute_otherwise_is_refused(case: tuple[Forward, Any, str, str]) -> None:
    function, held, name, line = case
    model = Model(function, h=held)
    with pytest.raises(ForgeError, match=f"the model computes with its [a-z]+ {name}") as raised:
        forgec.compile(model, (x34,))
    assert raised.value.code == "FORGE-C009"
    place = raised.value.diagnostics[0].location
    assert place is not None
    assert line in (source_line(place) or "")
    assert model.h is held
    assert not isinstance(held, list) or not held
    assert (N, Tally.total, model.absent) == (0, 0, None)


def _counts_from_zero(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h += 1
    return x * self.h


def _decays(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = self.h * 0.5
    return x + self.h


def _in_containers(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h["at"].seen += x.shape[0]
    self.h["list"][1] -= 2
    return x * self.h["at"].seen + self.h["list"][1]


def _averages(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = self.h * 0.9 + x * 0.1
    return self.h


def _swaps(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h[0], self.h[1] = self.h[1], self.h[0] + x
    return self.h[0] - self.h[1] * 2


def _shares(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h[0] = self.h[0] + x
    return self.h[0] * self.h[1]


def _makes_and_indexes(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h += 1
    return torch.cat((x[0], x.new_ones(self.h))) * x[:, self.h % 4].sum()


def _resets(self: Any, x: torch.Tensor) -> torch.Tensor:
    before, self.h = self.h, x.shape[1]
    return x + before


SHARED = torch.ones(3, 4)
STATES: dict[str, tuple[Forward, Callable[[], Any]]] = {
    "counts": (_counts_from_zero, lambda: 0),
    "decays": (_decays, lambda: 1.0),
    "in containers": (_in_containers, lambda: {"at": SimpleNamespace(seen=1), "list": ["text", 5]}),
    "averages": (_averages, lambda: torch.zeros(3, 4)),
    "swaps": (_swaps, lambda: [torch.zeros(3, 4), torch.ones(3, 4)]),
    "one tensor in two places": (_shares, lambda: [SHARED, SHARED]),
    "extents and indices": (_makes_and_indexes, lambda: 1),
    "resets": (_resets, lambda: 7),
}


@pytest.mark.parametrize("case", STATES.values(), ids=STATES)
def test_numbers_and_tensors_in_attributes_are_state(case: tuple[Forward, Callable[[], Any]]) -> None:
    function, held = case
    model, eager = Model(function, h=held()), Model(function, h=held())
    before = repr(model.h)
    assert warned(model, x34) == []
    assert repr(model.h) == before
    assert not any(name.startswith("_forgec") for name, _ in model.named_buffers())
    session = forgec.compile(model, (x34,)).session()
    for number in range(5):
        torch.testing.assert_close(session(x34 + number), eager(x34 + number))
    session.reset()
    torch.testing.assert_close(session(x34), Model(function, h=held())(x34))
    assert torch.equal(SHARED, torch.ones(3, 4))


def test_states_have_the_names_of_their_attributes() -> None:
    compiled = forgec.compile(Model(_in_containers, h={"at": SimpleNamespace(seen=1), "list": ["text", 5]}), (x34,))
    states = {register.name for register in compiled.plan.public[0].registers if isinstance(register, State)}
    assert states == {"h['at'].seen", "h['list'][1]"}


def _keeps_the_last(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = x * 2
    return self.h + 1


def _uses_the_last(self: Any, x: torch.Tensor) -> torch.Tensor:
    before, self.h = self.h, x * 2
    return x + before.sum()


DIMS = {"hinted": torch.export.Dim.AUTO, "declared": torch.export.Dim("rows")}


@pytest.mark.parametrize("dim", DIMS.values(), ids=DIMS)
def test_what_has_the_shape_of_the_call_is_no_state_and_fixes_no_extent(dim: Any) -> None:
    def compiled(function: Forward) -> Any:
        model = Model(function, h=torch.zeros(3, 4))
        return forgec.compile(model, (x34,), dynamic_shapes={"x": {0: dim}})

    with pytest.warns(forgec.ForgecWarning, match="'h'"):
        found = compiled(_keeps_the_last)
    for rows in (3, 5):
        x = torch.ones(rows, 4)
        assert torch.equal(found(x), x * 2 + 1)
    with pytest.raises(ForgeError, match="its attribute 'h'") as raised:
        compiled(_uses_the_last)
    assert raised.value.code == "FORGE-C009"
