"""``verify``: outputs against eager PyTorch, ops against float64, and what is made of them."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr

import forgec
from forgec.backends.aten import composite
from forgec.diagnostics import ForgeError
from forgec.ir import plan
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.registry import added_passes
from forgec.verify import Verification, bisect, verify, verify_artifact
from forgec.verify.distributions import compare_logits
from forgec.verify.lines import LineError
from forgec.verify.tolerance import Tolerance, deviation
from tests.verify import seeded
from tests.verify.test_bisect import exported
from tests.verify.victims import Bits, Layers


class Cancelling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = x + 1e6
        return (large - 1e6).relu()


class Magnifying(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1e4).sum(-1) - 64e4


class Deciding(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        third = x / 3
        same = third * 3 == x
        return same, torch.where(same, x, x * 1000)


class Choosing(nn.Module):
    """The number of rows depends on rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x / 3 * 3 == x)[:, 0]
        return x[rows].cumsum(0)


class Writing(nn.Module):
    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target[:, 1:] += torch.tanh(x)[:, 1:]
        return target.sum()


def line(found: Verification, text: str, source: Any) -> LineError:
    """The row of the line in which a text stands."""
    lines, first = inspect.getsourcelines(source)
    number = first + next(index for index, line in enumerate(lines) if text in line)
    (row,) = [row for row in found.lines if any(place.line == number for place in row.places)]
    return row


@pytest.mark.parametrize("victim", ["Decoder", "Bits", "Layers", "Steps"])
def test_right_programs_agree(victim: str):
    model, inputs = exported(victim)
    found = verify(model, inputs)
    assert found.agrees
    assert (found.against, found.tolerance.rtol, found.tolerance.atol) == ("eager", 2.1e-5, 0.0)
    assert not found.not_followed
    assert found.lines
    for row in found.lines:
        assert [Path(place.file).name for place in row.places] == ["victims.py"] * len(row.places)
        assert row.added.relative < 1e-6
    order = [row.added.relative for row in found.lines]
    assert order == sorted(order, reverse=True)


def test_states_are_compared_and_left_as_they_were():
    torch.manual_seed(0)
    model, inputs = Bits().eval(), exported("Bits")[1]
    model.seen.fill_(3.0)
    found = verify(model, inputs)
    assert found.agrees
    assert [(output.name, output.kind) for output in found.outputs] == [
        ("moved", "output"),
        ("long", "output"),
        ("seen", "output"),
        ("seen", "state"),
    ]
    assert bool((model.seen == 3.0).all())


def test_arguments_that_are_written_are_compared():
    inputs = (torch.randn(3, 4), torch.ones(3, 4))
    found = verify(Writing(), inputs)
    assert found.agrees
    assert [(output.name, output.kind) for output in found.outputs] == [("output", "output"), ("target", "argument")]
    assert bool((inputs[1] == 1).all())


def test_ops_inside_kernels_are_seen():
    model, inputs = exported("Layers")
    whole = {row.places for row in verify(model, inputs, pipeline="@O2").lines}
    assert whole == {row.places for row in verify(model, inputs, pipeline="").lines}


def test_added_error_and_total_error():
    """The addition loses the digits, the subtraction shows it."""
    found = verify(Cancelling(), (torch.rand(64),), pipeline="")
    add, sub = line(found, "large = x", Cancelling), line(found, "large - 1e6", Cancelling)
    assert found.lines[0] is add
    assert 1e-9 < add.added.relative < 1e-7
    assert sub.added.relative == 0
    assert sub.total.relative > 1e-3
    assert sub.executions == 2


def test_decisions_are_the_programs():
    x = torch.arange(1, 2000, dtype=torch.float32) * 0.37
    found = verify(Deciding(), (x,))
    assert found.agrees
    flips = int((x / 3 * 3 != x).sum() - (x.double() / 3 * 3 != x.double()).sum())
    assert found.decisions > 0
    assert flips <= found.decisions
    where = found.outputs[1]
    assert where.exact is not None
    assert where.exact.relative < 1e-6


def test_run_time_extents_are_the_programs():
    found = verify(Choosing(), (torch.arange(1, 200, dtype=torch.float32) * 0.37,))
    assert found.agrees
    assert found.outputs[0].exact is not None
    assert found.outputs[0].exact.relative < 1e-6


def test_other_inputs_by_name_and_dynamic_extents():
    dynamic = {"x": {0: forgec.Dim("rows", min=2, max=64)}}
    model, x = Layers().eval(), torch.randn(9, 6)
    found = verify(model, (torch.randn(5, 6),), dynamic_shapes=dynamic, inputs={"x": x})
    assert found.agrees
    assert found.outputs[0].compiled.size == 54
    with pytest.raises(ForgeError, match="there is no input y"):
        verify(model, (x,), inputs={"y": x})


def test_another_dtype():
    found = verify(Layers().eval(), (torch.randn(5, 6),), dtype="bfloat16")
    assert found.agrees
    assert found.tolerance.rtol == 3e-2
    assert 1e-3 < found.lines[0].added.relative < 2e-2
    with pytest.raises(ForgeError, match="FORGE-U005"):
        verify(Layers(), (torch.randn(5, 6),), dtype="int8")


def test_programs_that_magnify_errors_agree():
    """Their own rounding is allowed for, unless a tolerance is given."""
    inputs = (torch.rand(2, 64),)
    found = verify(Magnifying(), inputs)
    assert found.agrees
    (output,) = found.outputs
    assert output.exact is not None
    assert output.exact.relative > 1e-4
    assert output.allowed > 2.1e-5 * output.compiled.scale
    strict = verify(Magnifying(), inputs, rtol=2.1e-5)
    assert strict.outputs[0].allowed == pytest.approx(2.1e-5 * output.compiled.scale)


class Swallowing(nn.Module):
    """In bfloat16, the scores of a row that is all padding are lost in -10000; in float32 they are not."""

    def forward(self, q: torch.Tensor, pad: torch.Tensor) -> torch.Tensor:
        scores = q @ q.mT + (1 - pad[:, None, None].to(q.dtype)) * -10000.0
        return scores.softmax(-1) @ q


def test_what_rounding_may_hide_is_not_said_to_agree(monkeypatch: pytest.MonkeyPatch):
    """A backend that computes in another dtype than the IR says differs by less than rounding costs the program."""
    torch.manual_seed(0)
    inputs = (torch.randn(2, 4, 9, 8).bfloat16(), torch.tensor([[1.0] * 9, [0.0] * 9]).bfloat16())
    right = verify(Swallowing(), inputs)
    assert right.agrees
    assert not right.is_uncertain
    assert right.outputs[0].rounding > right.outputs[0].compiled.scale / 2
    monkeypatch.setattr(composite, "_softmax_dtype_of_sdpa", lambda op: "bf16")
    wrong = verify(Swallowing(), inputs)
    assert not wrong.agrees
    assert wrong.is_uncertain
    (output,) = wrong.to_dict()["outputs"]
    assert output["uncertain"]
    assert output["compiled"]["wrong"] > 0
    assert output["exact"]["unequal"] > output["compiled"]["wrong"]
    found = bisect(Swallowing(), inputs)
    assert found is not None
    assert (found.code, found.op) == ("FORGE-V005", "forge.attention")


def test_tolerances_below_the_rounding_of_the_dtype():
    model, inputs = exported("Decoder")
    found = verify(model, inputs, rtol=1e-9)
    assert (found.agrees, found.is_uncertain) == (False, True)
    step = bisect(model, inputs, rtol=1e-9)
    assert step is not None
    assert step.code == "FORGE-V005"
    assert "need be no defect" in str(step)
    with added_passes(seeded.seeded("gelu", seeded.gelu)):
        model, inputs = exported("Layers")
        assert not verify(model, inputs, rtol=1e-9, pipeline="seeded-gelu").is_uncertain


def test_a_wrong_program_differs():
    model, inputs = exported("Bits")
    with added_passes(seeded.seeded("permutations", seeded.permutations)):
        found = verify(model, inputs, pipeline="seeded-permutations")
    assert not found.agrees
    assert [output.name for output in found.outputs if not output.compiled.agrees] == ["moved"]
    assert found.to_dict()["agrees"] is False


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ForgeError, match="FORGE-V002"):
        verify(nn.Dropout().train(), (torch.randn(4),))
    model = nn.Linear(3, 3)
    with pytest.raises(ForgeError, match="rtol is -1"):
        verify(model, (torch.randn(2, 3),), rtol=-1.0)
    with pytest.raises(ForgeError, match="atol is nan"):
        verify(model, (torch.randn(2, 3),), atol=math.nan)


def test_a_model_that_fails():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_exporting():
                raise RuntimeError("no luck")
            return x + 1

    with pytest.raises(ForgeError, match=r"FORGE-V004.*RuntimeError: no luck"):
        verify(Failing(), (torch.randn(3),))


def test_artifacts_are_compared_with_their_ir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, inputs = exported("Decoder")
    forgec.compile(model, inputs).save(tmp_path / "right.forge")
    found = verify_artifact(tmp_path / "right.forge", {"x": inputs[0]})
    assert found.agrees
    assert found.against == "float64"
    assert any(place.file.endswith("victims.py") for row in found.lines for place in row.places)
    with pytest.raises(ForgeError, match="input x is missing"):
        verify_artifact(tmp_path / "right.forge", {})

    real = LowerToPlan.apply

    def apply(self: LowerToPlan, ctx: Context, op: ModuleOp) -> None:
        real(self, ctx, op)
        for launch in [inner for inner in op.walk() if isinstance(inner, plan.LaunchOp)]:
            if launch.callee.data == "aten::sub.out":
                launch.callee = StringAttr("aten::add.out")

    monkeypatch.setattr(LowerToPlan, "apply", apply)
    model, inputs = exported("Layers")
    forgec.compile(model, inputs).save(tmp_path / "wrong.forge")
    assert not verify_artifact(tmp_path / "wrong.forge", {"x": inputs[0]}).agrees


def test_artifacts_with_state_and_merged_weights(tmp_path: Path):
    model, inputs = exported("Bits")
    forgec.compile(model, inputs).save(tmp_path / "model.forge", external_weights=True)
    named = dict(zip(("x", "cube", "index"), inputs, strict=True))
    found = verify_artifact(tmp_path / "model.forge", named)
    assert found.agrees
    assert [output.kind for output in found.outputs] == ["output", "output", "output", "state"]


def test_deviations():
    x = torch.tensor([1.0, -2.0, math.inf, math.nan])
    assert deviation(x, x.clone()).agrees
    assert deviation(x, torch.tensor([1.0, -2.0, math.inf, 0.0])).wrong == 1
    assert deviation(x, torch.tensor([1.0, -2.0, -math.inf, math.nan])).wrong == 1
    near = deviation(x, torch.tensor([1.0, -2.5, math.inf, math.nan]), Tolerance(0.25))
    assert (near.absolute, near.scale, near.relative, near.agrees) == (0.5, 2.0, 0.25, True)
    assert not deviation(x, torch.tensor([1.0, -2.5, math.inf, math.nan]), Tolerance(0.2)).agrees
    assert deviation(torch.zeros(2), torch.full((2,), 1e-9)).relative == math.inf
    assert deviation(torch.zeros(2), torch.full((2,), 1e-9), Tolerance(0.0, 1e-8)).agrees
    assert deviation(torch.tensor([1, 2]), torch.tensor([1, 5])).absolute == 3
    assert deviation(torch.tensor([True, False]), torch.tensor([True, True])).wrong == 1
    assert "shape [2] became [3]" in deviation(torch.zeros(2), torch.zeros(3)).problem
    assert "dtype float32 became int64" in deviation(torch.zeros(2), torch.zeros(2, dtype=torch.int64)).problem
    assert deviation(torch.zeros(0), torch.zeros(0)).agrees


def test_what_overflows_in_a_narrow_dtype_is_infinite_there():
    wide = torch.tensor([1e39, -1e39, 1.0], dtype=torch.float64)
    assert deviation(wide, torch.tensor([math.inf, -math.inf, 1.0])).absolute == 0
    assert deviation(wide, torch.tensor([math.inf, math.inf, 1.0])).absolute == math.inf


def test_divergence_of_logits():
    torch.manual_seed(0)
    p, q = torch.randn(3, 5, 11), torch.randn(3, 5, 11)
    found = compare_logits(p, q)
    assert found is not None
    log_p, log_q = (x.double().log_softmax(-1).reshape(15, 11) for x in (p, q))
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert found.divergence == pytest.approx(float(each.mean()))
    assert found.largest_divergence == pytest.approx(float(each.max()))
    assert found.difference == pytest.approx(float((p.double() - q.double()).abs().max()))
    masked = torch.tensor([[0.0, -math.inf, 1.0]])
    same = compare_logits(masked, masked.clone())
    assert same is not None
    assert (same.difference, same.divergence) == (0.0, 0.0)
    assert compare_logits(torch.zeros(3), torch.zeros(3, dtype=torch.int64)) is None
    assert compare_logits(torch.zeros(3, 1), torch.zeros(3, 1)) is None
