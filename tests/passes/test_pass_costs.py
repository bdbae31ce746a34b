"""What passes report of costs, and that outlined layers count as often as they are called."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.diagnostics import ForgeError
from forgec.ir.context import context
from forgec.ir.cost import call_counts, module_cost, program_cost
from forgec.passes.instruments import Timing
from forgec.passes.manager import run_pipeline
from forgec.passes.outlining import AT_CALL
from forgec.report.report import fallbacks, totals
from tests.ir.build import parse

CHAIN = """
func.func @forward(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.cos %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.cos %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.add %0, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %2 : tensor<4x8xf32>
}
"""


class Block(nn.Module):
    """A layer with an operator that has no op of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.special.i1(self.up(x)).relu())


class Stack(nn.Module):
    """Blocks in a list; each is called once, the first twice."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (*self.layers, self.layers[0]):
            x = layer(x)
        return x


def test_each_pass_says_what_it_did_to_the_costs() -> None:
    reports = run_pipeline(parse(CHAIN), "cse,fuse-elementwise,dce", context=context(), costs=program_cost)
    merged, fused, rest = [report.to_dict() for report in reports]
    tensor = 4 * 4 * 8
    assert (merged["bytes_moved_before"], merged["bytes_moved_after"]) == (7 * tensor, 4 * tensor)
    assert merged["fusion_gain_ratio"] == 1.75
    assert (merged["launches_before"], merged["launches_after"], merged["launch_ratio"]) == (3, 2, 1.5)
    assert (fused["bytes_moved_before"], fused["bytes_moved_after"]) == (4 * tensor, 2 * tensor)
    assert (fused["launches_after"], fused["fusion_gain_ratio"]) == (1, 2.0)
    assert (rest["bytes_moved_before"], rest["fusion_gain_ratio"], rest["launch_ratio"]) == (2 * tensor, 1.0, 1.0)


def test_nobody_counts_unasked_or_after_a_pass_that_did_nothing() -> None:
    asked = []

    def costs(module):
        asked.append(module)
        return program_cost(module)

    (report,) = run_pipeline(parse(CHAIN), "cse", context=context())
    assert report.cost_before is None
    assert "fusion_gain_ratio" not in report.to_dict()
    run_pipeline(parse(CHAIN), "dce,cse,dce", context=context(), costs=costs)
    assert len(asked) == 2


def test_the_table_has_launches_and_gains_where_they_were_asked_for() -> None:
    plain, measured = Timing(), Timing()
    run_pipeline(parse(CHAIN), "cse,dce", context=context(), instruments=[plain])
    run_pipeline(parse(CHAIN), "cse,dce", context=context(), instruments=[measured], costs=program_cost)
    assert "FGR" not in plain.render()
    header, *rows = [line.split() for line in measured.render().splitlines()[1:]]
    assert header == ["//", "seconds", "share", "ops", "launches", "FGR", "pass"]
    assert rows[0][3:] == ["6", "→", "5", "3", "→", "2", "1.75", "cse"]
    assert rows[1][3:] == ["5", "2", "1.00", "dce"]
    assert rows[2][3:] == ["3", "→", "2", "1.75", "total"]


def test_outlined_layers_count_once_for_each_call() -> None:
    model, args = Stack(4).eval(), (torch.ones(3, 8),)
    module = import_program(export_model(model, args, {}, None), model, args, {}, None).module
    before = totals(module, {}), fallbacks(module, {}), module_cost(module).total.launches
    run_pipeline(module, "outline-layers{min-ops=2}", context=context())
    assert sorted(call_counts(module).values()) == [1, 5]
    assert (totals(module, {}), fallbacks(module, {}), module_cost(module).total.launches) == before
    (found,) = before[1]
    assert found["count"] == 5
    assert [line.rsplit("(")[-1] for line in found["lines"]] == [f"layers.{i})" for i in range(4)]
    run_pipeline(module, "inline-layers", context=context())
    assert (totals(module, {}), fallbacks(module, {}), module_cost(module).total.launches) == before


def test_calls_in_calls_and_in_control_flow() -> None:
    module = parse(
        """
    func.func private @inner(%x : tensor<4xf32>) -> tensor<4xf32> attributes {forge.layer} {
      %0 = forge.aten "aten::special_i1"(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("b.*"("F.f"("m.py":7:0)))
      func.return %0 : tensor<4xf32>
    } loc("b.*"("F.f"("m.py":6:0)))
    func.func private @outer(%x : tensor<4xf32>) -> tensor<4xf32> attributes {forge.layer} {
      %0 = func.call @inner(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("a.*.b.0"("F.f"("m.py":3:0)))
      %1 = func.call @inner(%0) : (tensor<4xf32>) -> tensor<4xf32> loc("a.*.b.1"("F.f"("m.py":3:0)))
      func.return %1 : tensor<4xf32>
    } loc("a.*"("F.f"("m.py":2:0)))
    func.func private @unused(%x : tensor<4xf32>) -> tensor<4xf32> {
      %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
      func.return %0 : tensor<4xf32>
    }
    func.func @forward(%x : tensor<4xf32>, %p : i1) -> tensor<4xf32> {
      %0 = func.call @outer(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("a.0"("F.f"("m.py":1:0)))
      %1 = scf.if %p -> (tensor<4xf32>) {
        %2 = func.call @outer(%0) {AT_CALL} : (tensor<4xf32>) -> tensor<4xf32> loc("c"("F.f"("m.py":9:0)))
        scf.yield %2 : tensor<4xf32>
      } else {
        scf.yield %0 : tensor<4xf32>
      }
      func.return %1 : tensor<4xf32>
    }
    """.replace("AT_CALL", AT_CALL)
    )
    assert {f.sym_name.data: n for f, n in call_counts(module).items()} == {"forward": 1, "outer": 2, "inner": 4}
    assert totals(module, {}).ops == module_cost(module).total.launches == 4
    (found,) = fallbacks(module, {})
    assert found == {
        "op": "aten::special_i1",
        "count": 4,
        "lines": ["m.py:7 in F.f (a.0.b.0)", "m.py:7 in F.f (a.0.b.1)", "m.py:9 in F.f (c)"],
        "share_of_flops": 1.0,
    }


def test_the_report_of_a_compilation_has_them_on_request() -> None:
    model, args = Stack(2).eval(), (torch.ones(3, 8),)
    plain = forgec.compile(model, args).report
    asked = forgec.compile(model, args, pass_costs=True).report
    assert plain.to_dict(times=False) == asked.to_dict(times=False)
    assert "costs" in asked.seconds
    assert "costs" not in plain.seconds
    entries = [entry for entry in asked.to_dict()["passes"] if "fusion_gain_ratio" in entry]
    assert [e["name"] for e in asked.passes if "fusion_gain_ratio" not in e] == ["lower-to-plan", "allocate-buffers"]
    assert entries[0]["bytes_moved_before"] == asked.captured.bytes_moved
    assert entries[-1]["bytes_moved_after"] == asked.optimized.bytes_moved
    assert entries[-1]["launches_after"] == asked.launches
    assert all(one["bytes_moved_after"] == two["bytes_moved_before"] for one, two in pairwise(entries))


def test_a_report_is_of_the_flat_program_though_the_module_stays_outlined() -> None:
    model, args = Stack(2).eval(), (torch.ones(3, 8),)
    flat = forgec.compile(model, args, pipeline="").report.to_dict(times=False)
    outlined = forgec.compile(model, args, pipeline="outline-layers{min-ops=2}")
    assert "forge.layer" in outlined.ir()
    found = outlined.report.to_dict(times=False)
    unlike = {name for name in flat if flat[name] != found[name]}
    assert unlike == {"pipeline", "passes"}
    with pytest.raises(ForgeError) as refused:
        forgec.compile(model, args, pipeline="outline-layers{min-ops=2}", fallback="error")
    places = [d.location.module for d in refused.value.diagnostics if d.location is not None]
    assert places == ["layers.0", "layers.1"]
