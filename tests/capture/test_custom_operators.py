"""Operators that users register: called by name, with what they write; an artifact needs their library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from tests.capture.compare import agree

x34 = torch.arange(12.0).reshape(3, 4) - 5

LIBRARY = """
import torch

@torch.library.custom_op("forgec_tests::scale", mutates_args=())
def scale(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x * factor

@scale.register_fake
def _(x, factor):
    return torch.empty_like(x)
"""

exec(compile(LIBRARY, "<library>", "exec"), globals())


@torch.library.custom_op("forgec_tests::without_fake", mutates_args=())
def without_fake(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@torch.library.custom_op("forgec_tests::bump", mutates_args={"x"})
def bump(x: torch.Tensor) -> None:
    x.add_(1)


@torch.library.custom_op("forgec_tests::move", mutates_args={"x", "y"})
def move(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    x.add_(z)
    y.sub_(z)
    return z * 2


@move.register_fake
def _(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(z)


library = torch.library.Library("forgec_tests_plain", "DEF")
library.define("twice(Tensor x, *, int k=2) -> Tensor")
library.define("inc(Tensor x) -> Tensor")
library.define("inc_(Tensor(a!) x) -> Tensor(a!)")
library.impl("twice", lambda x, *, k=2: x * k, "CompositeExplicitAutograd")
library.impl("inc", lambda x: x + 1, "CompositeExplicitAutograd")
library.impl("inc_", lambda x: x.add_(1), "CompositeExplicitAutograd")
torch.library.register_fake("forgec_tests_plain::twice", lambda x, *, k=2: torch.empty_like(x))
torch.library.register_fake("forgec_tests_plain::inc", lambda x: torch.empty_like(x))
torch.library.register_fake("forgec_tests_plain::inc_", lambda x: x)

library.define("count(Tensor x) -> SymInt")
library.define("kept(Tensor x) -> (Tensor, SymInt, float)")
library.define("take(Tensor(a!) x) -> SymInt")
library.impl("count", lambda x: int((x > 0).sum()), "CompositeExplicitAutograd")
library.impl("kept", lambda x: (x[x > 0], int((x > 0).sum()), 0.5), "CompositeExplicitAutograd")
library.impl("take", lambda x: int(x.sub_(1).sum()), "CompositeExplicitAutograd")


@torch.library.register_fake("forgec_tests_plain::count")
@torch.library.register_fake("forgec_tests_plain::take")
def _(x: torch.Tensor) -> Any:
    return torch.library.get_ctx().new_dynamic_size()


@torch.library.register_fake("forgec_tests_plain::kept")
def _(x: torch.Tensor) -> Any:
    count = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(count), count, 0.5


ops: Any = torch.ops.forgec_tests
plain: Any = torch.ops.forgec_tests_plain

USES: dict[str, Callable[[torch.Tensor], Any]] = {
    "an operator": lambda x: ops.scale(x, 2.0) + 1,
    "one of torch.library.Library": lambda x: plain.twice(x, k=3),
    "one that writes": lambda x: (lambda y: (ops.bump(y), y))(x * 2)[1],
    "one that writes a view": lambda x: (lambda y: (ops.bump(y[1:]), ops.bump(y.t()), y))(x * 2)[2],
    "one that writes an input": lambda x: (ops.bump(x), x * 1)[1],
    "one that writes two and returns another": lambda x: (lambda y: (ops.move(y, x, x * 2), y))(x * 2),
    "one that writes two equal tensors": lambda x: (lambda a, b: (ops.move(a, b, x), a, b))(x * 2, x * 2),
    "one that returns what it writes": lambda x: (lambda y: (plain.inc_(y[0]), y))(x * 2)[1],
    "one that returns a number": lambda x: plain.count(x),
    "one that returns a number to compute with": lambda x: x * plain.count(x) + plain.count(x.neg()),
    "one that returns an extent": lambda x: x.new_ones(plain.count(x)) * 2,
    "one that returns a tensor and its extent": lambda x: (lambda r: (r[0] * 2, r[1], x.new_ones(r[1])))(plain.kept(x)),
    "one that returns a number of what is written later": lambda x: (lambda n: x.add_(9) * n)(plain.count(x)),
    "one that writes and returns a number": lambda x: (lambda y: (plain.take(y), y))(x * 2),
}


@pytest.mark.parametrize("what", USES)
def test_operators_of_users(what: str) -> None:
    agree(lambda: USES[what], [x34])


def test_one_tensor_written_twice_is_refused() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda x: (ops.move(x, x, x * 2), x), (x34.clone(),))
    assert raised.value.code == "FORGE-C005"


def test_an_operator_without_a_fake_is_refused_at_its_line() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda x: ops.without_fake(x) + 1, (x34,))
    assert raised.value.code == "FORGE-C001"
    assert "register_fake" in str(raised.value)
    place = raised.value.diagnostics[0].location
    assert place is not None
    assert place.file == "tests/capture/test_custom_operators.py"


def test_an_artifact_needs_the_library_of_its_operators(tmp_path: Path) -> None:
    path = tmp_path / "scale.forge"
    forgec.compile(lambda x: ops.scale(x, 2.0) + 1, (x34,)).save(path)
    run = f"import torch, forgec.runtime\nprint(forgec.runtime.load({str(path)!r})(torch.ones(3, 4)).sum().item())"
    alone = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert alone.returncode != 0
    assert "FORGE-A006" in alone.stderr
    assert "forgec_tests::scale" in alone.stderr
    assert "import the library that registers forgec_tests::" in alone.stderr
    together = subprocess.run([sys.executable, "-c", LIBRARY + run], capture_output=True, text=True, check=True)
    assert together.stdout.strip() == "36.0"
