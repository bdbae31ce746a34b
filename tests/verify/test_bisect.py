"""Seeded miscompiles are localised: the pass, an op that it touched, the line of the model; and the reproducer shows
them.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

import forgec
from forgec.capture import capture
from forgec.ir import plan
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.index import GatherOp
from forgec.ir.ops.unary import ClampOp
from forgec.passes.allocate_buffers import AllocateBuffers
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.pipelines import PRESETS, expand
from forgec.passes.registry import added_passes
from forgec.runtime import aten as runtime_aten
from forgec.verify import Finding, bisect, bisect_ir
from tests.verify import seeded, victims
from tests.verify.seeded import Mutation


@dataclass(frozen=True)
class Kind:
    """A miscompile: what it does, in which pass of forgec (or a pass of its own), to which model, at which ops."""

    name: str
    mutate: Mutation
    ops: Sequence[str]
    victim: str = "Bits"
    inside: str = ""
    most: int = 8
    """Ops of the reproducer at most."""

    @property
    def pass_(self) -> type[ModulePass]:
        """The wrong pass."""
        return seeded.wrapped(self.inside, self.mutate) if self.inside else seeded.seeded(self.name, self.mutate)

    @property
    def pipeline(self) -> str:
        """The standard pipeline with the wrong pass in it."""
        return "@O2" if self.inside else f"{self.pass_.name},@O2"


KINDS = [
    Kind("attention-scale", seeded.attention_scale, ["forge.matmul"], "Decoder", "fuse-attention"),
    Kind("causal", seeded.causal, ["forge.attention"], "Decoder", "classify-masks"),
    Kind("window", seeded.window, ["forge.attention"], "Decoder", "classify-masks", 9),
    Kind("head-groups", seeded.head_groups, ["forge.attention"], "Decoder", "group-query-heads"),
    Kind("rope-sign", seeded.rope_sign, ["forge.add"], "Decoder", "fuse-rope"),
    Kind("norm-eps", seeded.norm_eps, ["forge.mul"], "Decoder", "fuse-norm"),
    Kind("norm-offset", seeded.norm_offset, ["forge.mul"], "Decoder", "fuse-norm"),
    Kind("glu-operands", seeded.glu_operands, ["forge.mul"], "Decoder", "fuse-glu"),
    Kind("merge-offset", seeded.merge_offset, ["forge.linear", "forge.glu"], "Decoder", "merge-linears"),
    Kind("residual", seeded.residual, ["forge.add", "forge.linear"], "Decoder", "fuse-epilogue"),
    Kind("softmax-dim", seeded.softmax_dim, ["forge.softmax"], "Decoder"),
    Kind("stale-operand", seeded.stale_operand, ["forge.add", "forge.mul"], "Bits", "fuse-elementwise"),
    Kind("state-write", seeded.state_write, ["forge.state_write"]),
    Kind("permutations", seeded.permutations, ["forge.transpose"]),
    Kind("sub-operands", seeded.sub_operands, ["forge.sub"]),
    Kind("times-one", seeded.times_one, ["forge.mul"]),
    Kind("broadcast-dim", seeded.broadcast_dim, ["forge.add"]),
    Kind("cse-attribute", seeded.cse_attribute, ["forge.softmax"]),
    Kind("gelu", seeded.gelu, ["forge.gelu"]),
    Kind("constant", seeded.constant, ["forge.sqrt"], "Bits", "constant-fold"),
    Kind("cast-order", seeded.cast_order, ["forge.mul"]),
    Kind("sum-dim", seeded.sum_dim, ["forge.sum"]),
    Kind("concat-order", seeded.concat_order, ["forge.concat"]),
    Kind("slice-start", seeded.slice_start, ["forge.slice"]),
    Kind("gather-dim", seeded.gather_dim, ["forge.gather"]),
    Kind("where-branches", seeded.where_branches, ["forge.where"]),
    Kind("comparison", seeded.comparison, ["forge.lt"]),
    Kind("layer-weights", seeded.call_operands, ["forge.sigmoid"], "Layers", "outline-layers", 25),
    Kind("branch", seeded.sub_operands, ["forge.sub"], "Steps"),
]


@cache
def exported(victim: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A model as torch.export leaves it, and its inputs."""
    torch.manual_seed(0)
    inputs = {
        "Decoder": (torch.randn(2, 6, 16),),
        "Bits": (torch.randn(4, 4), torch.randn(3, 3, 3), torch.tensor([[0, 2, 1, 3]] * 4).t().contiguous()),
        "Layers": (torch.randn(5, 6),),
        "Steps": (torch.randn(5, 6), torch.tensor(True)),
    }[victim]
    model = getattr(victims, victim)().eval()
    return torch.export.export(model, inputs), inputs


def line_of(kind: str) -> int:
    """The line of the victims' file that a comment marks."""
    lines = inspect.getsource(victims).splitlines()
    found = [number for number, line in enumerate(lines, 1) if re.search(rf"# here:.*\b{kind}(,|$)", line)]
    assert len(found) == 1, kind
    return found[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_seeded_miscompiles_are_localised(kind: Kind, tmp_path: Path):
    model, inputs = exported(kind.victim)
    with added_passes(kind.pass_):
        found = bisect(model, inputs, pipeline=kind.pipeline, folder=tmp_path)
        assert found is not None
        assert (found.stage, found.pass_name) == ("pass", kind.pass_.name)
        assert found.op in kind.ops
        assert found.location is not None
        assert (Path(found.location.file).name, found.location.line) == ("victims.py", line_of(kind.name))
        assert str(found) == str(found.diagnostic())
        assert str(found).startswith(f"error[{found.code}]: {found.headline}")
        assert found.reproducer is not None
        assert len(found.ops) <= kind.most
        again = reproduced(found)
    assert again is not None
    assert again.pass_name == kind.pass_.name
    assert again.op == found.op


def reproduced(found: Finding) -> Finding | None:
    """What bisecting the reproducer finds."""
    assert found.reproducer is not None
    text = found.reproducer.path.read_text()
    assert text.startswith(f"// RUN: forgec opt %s -p {shlex.quote(found.pipeline)}\n")
    seed = re.search(r"--seed (\d+)", found.reproducer.command)
    return bisect_ir(
        text,
        found.reproducer.path.name,
        pipeline=found.pipeline,
        seed=int(seed[1]) if seed else 0,
        data_file=found.reproducer.data,
    )


def test_there_are_at_least_twenty_kinds():
    assert len({kind.mutate for kind in KINDS}) >= 20


def test_lowering_is_bisected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    real = LowerToPlan.apply

    def apply(self: LowerToPlan, ctx: Context, op: ModuleOp) -> None:
        real(self, ctx, op)
        for launch in [inner for inner in op.walk() if isinstance(inner, plan.LaunchOp)]:
            if launch.callee.data == "aten::sub.out":
                launch.callee = StringAttr("aten::add.out")

    monkeypatch.setattr(LowerToPlan, "apply", apply)
    model, inputs = exported("Bits")
    found = bisect(model, inputs, folder=tmp_path)
    assert found is not None
    assert (found.stage, found.pass_name, found.op) == ("pass", "lower-to-plan", "forge.sub")
    assert found.location is not None
    assert found.location.line == line_of("sub-operands")
    assert len(found.ops) == 1
    again = reproduced(found)
    assert again is not None
    assert again.pass_name == "lower-to-plan"


def test_allocation_is_bisected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    real = AllocateBuffers.apply

    def apply(self: AllocateBuffers, ctx: Context, op: ModuleOp) -> None:
        real(self, ctx, op)
        for buffer in [inner for inner in op.walk() if isinstance(inner, plan.BufferOp)]:
            buffer.offset = ExtentAttr(0)

    monkeypatch.setattr(AllocateBuffers, "apply", apply)
    model, inputs = exported("Decoder")
    found = bisect(model, inputs, folder=tmp_path)
    assert found is not None
    assert (found.stage, found.pass_name) == ("pass", "allocate-buffers")
    assert found.pipeline == 'lower-to-plan{target="cpu:aten"},allocate-buffers'
    assert found.location is not None
    assert Path(found.location.file).name == "victims.py"
    assert len(found.ops) <= 8
    again = reproduced(found)
    assert again is not None
    assert again.pass_name == "allocate-buffers"


def test_the_runtime_is_bisected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    real = runtime_aten.resolve

    def resolve(op: str) -> Any:
        return real({"aten::tanh.out": "aten::sinh.out", "aten::tanh": "aten::sinh"}.get(op, op))

    monkeypatch.setattr(runtime_aten, "resolve", resolve)
    found = bisect(victims.Layers().eval(), (torch.randn(5, 6),), folder=tmp_path)
    assert found is not None
    assert (found.stage, found.code) == ("runtime", "FORGE-V003")
    assert found.op in ("forge.tanh", "forge.linear")
    assert found.location is not None
    assert "tanh" in inspect.getsource(victims).splitlines()[found.location.line - 1]
    assert found.reproducer is not None
    again = reproduced(found)
    assert again is not None
    assert again.stage == "runtime"


def test_capture_is_bisected(monkeypatch: pytest.MonkeyPatch):
    real = capture.import_program

    def import_program(*args: Any, **kwargs: Any) -> Any:
        captured = real(*args, **kwargs)
        for op in list(captured.module.walk()):
            seeded.sub_operands(op)
        return captured

    monkeypatch.setattr(capture, "import_program", import_program)
    found = bisect(victims.Layers().eval(), (torch.randn(5, 6),))
    assert found is not None
    assert (found.stage, found.code) == ("capture", "FORGE-V003")
    assert list(found.results) == ["output"]


def test_a_pass_after_which_nothing_runs_is_found(tmp_path: Path):
    """The IR verifies after the pass, and fails when it runs."""

    def mutate(op: Operation) -> None:
        if isinstance(op, GatherOp):
            index = MulOp.of(op.index, 100)
            seeded.insert_before(op, index)
            op.operands[1] = index.results[0]

    model, inputs = exported("Bits")
    with added_passes(seeded.seeded("out-of-range", mutate)):
        found = bisect(model, inputs, pipeline="seeded-out-of-range", folder=tmp_path)
        assert found is not None
        assert (found.stage, found.pass_name, found.op) == ("pass", "seeded-out-of-range", "forge.gather")
        assert "FORGE-R007" in found.headline
        assert found.location is not None
        assert found.location.line == line_of("gather-dim")
        again = reproduced(found)
    assert again is not None
    assert again.failure


def test_inside_of_outlined_layers(tmp_path: Path):
    with added_passes(seeded.seeded("layer-body", seeded.sub_operands)):
        pipeline = "outline-layers{unnamed=false},seeded-layer-body,@O2"
        torch.manual_seed(0)
        found = bisect(victims.Layers().eval(), (torch.randn(5, 6),), pipeline=pipeline, folder=tmp_path)
        assert found is not None
        assert (found.pass_name, found.op, len(found.ops)) == ("seeded-layer-body", "forge.sub", 1)
        assert found.location is not None
        assert (found.location.line, found.location.module) == (line_of("layer-body"), "layers.*")
        again = reproduced(found)
    assert again is not None
    assert again.op == "forge.sub"


def test_inputs_that_random_ones_do_not_replace_are_written(tmp_path: Path):
    """Only a large number shows that the bound is gone."""

    def mutate(op: Operation) -> None:
        if isinstance(op, ClampOp):
            op.upper = ScalarAttr.of(1000.0)

    class Bounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.clamp(x, -50.0, 50.0).sqrt()

    with added_passes(seeded.seeded("bound", mutate)):
        found = bisect(Bounded(), (torch.full((3, 4), 81.0),), pipeline="seeded-bound,@O2", folder=tmp_path)
        assert found is not None
        assert found.op == "forge.clamp"
        assert found.reproducer is not None
        assert found.reproducer.data is not None
        assert found.reproducer.command.endswith(f" --data {found.reproducer.data.name}")
        again = reproduced(found)
    assert again is not None
    assert again.op == "forge.clamp"


def test_dynamic_extents_and_those_that_the_run_tells(tmp_path: Path):
    class Rows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.nonzero(x[:, 0] > 0)[:, 0]
            chosen = torch.tanh(x[rows])
            return (chosen.exp() - chosen.cos()).sum(0)

    shapes = ({0: forgec.Dim("rows", min=2, max=64)},)
    with added_passes(seeded.seeded("sub", seeded.sub_operands)):
        found = bisect(
            Rows(), (torch.randn(9, 3),), dynamic_shapes=shapes, pipeline="canonicalize,seeded-sub,@O2", folder=tmp_path
        )
        assert found is not None
        assert (found.pass_name, found.op, len(found.ops)) == ("seeded-sub", "forge.sub", 1)
        assert found.location is not None
        assert "chosen.exp()" in Path(__file__).read_text().splitlines()[found.location.line - 1]
        again = reproduced(found)
    assert again is not None
    assert again.op == "forge.sub"


@pytest.mark.parametrize("victim", ["Decoder", "Bits", "Layers", "Steps"])
def test_nothing_is_found_where_nothing_differs(victim: str):
    model, inputs = exported(victim)
    assert bisect(model, inputs) is None
    assert "fuse-attention" in expand("@O2", PRESETS)
