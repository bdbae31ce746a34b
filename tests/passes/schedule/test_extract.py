"""Graphs of kernels' loops: attention, linear layers, decoded weights, experts, softmax and norms of long rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from xdsl.dialects import arith

from forgec.diagnostics import ForgeError
from forgec.ir.examples import FORGE_EXAMPLES, module_of
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import KernelOp
from forgec.passes import remarks
from forgec.passes.rewriting import replace as replace_op
from forgec.passes.schedule.extract import extract, graphs, kernels_of, loops_of, phases
from forgec.passes.schedule.stretches import MOST_OPS
from forgec.schedule import machine
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.check import check
from forgec.schedule.graph import Graph
from forgec.schedule.kernels import named
from forgec.schedule.machine import Machine
from forgec.schedule.solve import schedules
from tests.ir.build import parse, text_of
from tests.passes.schedule.loops import any_machine, attention, bound, lowered
from tests.passes.schedule.scheduled import assert_same, scheduled
from tests.schedule.loops import attention as attention_by_hand

ON_HOPPER = 'lower-to-tile,bind-tiles{target="cuda:sm_90a"}'


@pytest.fixture(scope="module")
def hopper() -> Machine:
    return machine.named("sm_90a")


@pytest.fixture(scope="module")
def blackwell() -> Machine:
    return machine.named("sm_100a")


def refusal(kernel: KernelOp, model: Machine, **options: object) -> str:
    with pytest.raises(ForgeError) as caught:
        extract(kernel, model, **options)  # type: ignore[arg-type] - of several types
    assert caught.value.code == "FORGE-U010"
    assert kernel.sym_name.data in str(caught.value)
    return str(caught.value)


def without_scale(kernel: KernelOp) -> KernelOp:
    """The scores as they are: by hand the factor is part of the exponential's multiply-add."""
    for op in list(kernel.body.walk()):
        if isinstance(op, arith.MulfOp) and isinstance(op.lhs.owner, DotOp):
            replace_op(op, [op.lhs])
    return kernel


def main_kinds(graph: Graph) -> list[str]:
    return sorted(op.kind.split("+")[0] for op in graph.ops)


def twins(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops if op.part in (0, None)]


# Attention


@pytest.mark.parametrize(("head", "parts", "keys"), [(128, 2, 128), (128, 2, 176), (64, 2, 128)])
def test_attention_is_what_it_is_by_hand(head: int, parts: int, keys: int, hopper: Machine) -> None:
    kernel = without_scale(attention(head, 64, keys, 24 * keys))
    extracted = extract(kernel, hopper, parts=parts)
    wanted = attention_by_hand(hopper, parts, keys, head)
    assert extracted.axis == 1
    assert extracted.graph.work == wanted.work
    assert extracted.graph.traffic == wanted.traffic
    assert extracted.graph.resident == wanted.resident
    assert main_kinds(extracted.graph) == main_kinds(wanted)
    assert lower_bounds(extracted.graph, hopper)[0] == lower_bounds(wanted, hopper)[0]
    ours, theirs = (schedules([[graph]], hopper)[0] for graph in (extracted.graph, wanted))
    assert check(ours, hopper) == []
    assert ours.phases[0].ii == theirs.phases[0].ii
    assert [group.kind for group in ours.groups] == [group.kind for group in theirs.groups]


GEMM = """
func.func @f(%x: !T, %w: !T) -> !T {
  %y = forge.linear %x, %w : (!T, !T) -> !T
  func.return %y : !T
}""".replace("!T", "tensor<4096x4096xbf16>")


def unit_bounds(graph: Graph, model: Machine, *left_out: str) -> dict[str, int]:
    found = {bound.name: bound.cycles for bound in lower_bounds(graph, model) if bound.name.startswith("unit ")}
    return {name: cycles for name, cycles in found.items() if name not in left_out}


@pytest.mark.parametrize(("target", "rows", "parts"), [("sm_80", 64, 1), ("sm_90a", 64, 2), ("sm_100a", 128, 2)])
def test_units_are_as_busy_as_in_the_kernels_by_name(target: str, rows: int, parts: int) -> None:
    model = machine.named(target)
    (gemm,) = lowered(GEMM, {"BM": rows, "BN": 128, "BK": 64})
    ours = extract(gemm, model, parts=parts).graph
    tile = {"BM": rows * parts, "BN": 128, "BK": 64, "parts": parts}
    (theirs,) = [graph for (graph,) in named("gemm", model, {"m": 4096, "n": 4096, "k": 4096}) if graph.tile == tile]
    assert unit_bounds(ours, model) == unit_bounds(theirs, model)
    heads = extract(without_scale(attention(128, rows, 64, 1536)), model, parts=parts).graph
    (wanted,) = [
        graph
        for (graph,) in named("attention-fwd", model, {"head": 128})
        if (graph.tile["BM"], graph.tile["BN"]) == (rows * parts, 64)
        and parts == graph.tile.get("consumers", graph.tile.get("parts"))
    ]
    # How many programs share keys, and exponentials of one number for each row, are counted otherwise by hand.
    other = ("unit memory", "unit sfu", "unit issue", "unit fp32")
    assert unit_bounds(heads, model, *other) == unit_bounds(wanted, model, *other)


def test_attention_in_tensor_memory(blackwell: Machine) -> None:
    extracted = extract(without_scale(attention(128, 128, 128, 2048)), blackwell)
    wanted = attention_by_hand(blackwell, 1, 128)
    assert sorted(op.role for op in extracted.graph.ops) == sorted(op.role for op in wanted.ops)
    assert sum(v.size for v in extracted.graph.values if v.memory == "tensor") == sum(
        v.size for v in wanted.values if v.memory == "tensor"
    )
    ours, theirs = (schedules([[graph]], blackwell)[0] for graph in (extracted.graph, wanted))
    assert check(ours, blackwell) == []
    # New and old maxima differ by exponentials of one number for each row, which are counted too.
    assert theirs.phases[0].ii <= ours.phases[0].ii <= theirs.phases[0].ii + 24
    assert {group.kind for group in ours.groups} == {"load", "mma", "softmax", "correction"}


def test_a_causal_attention_masks_in_its_softmax(hopper: Machine) -> None:
    plain = extract(attention(64, 64, 64, 1024), hopper, parts=2)
    causal = extract(attention(64, 64, 64, 1024, "causal"), hopper, parts=2)
    assert twins(causal.graph) == twins(plain.graph)
    masked, unmasked = causal.graph.op("max.0"), plain.graph.op("max.0")
    assert masked.issue > unmasked.issue
    assert any(op.name == "arith.cmpi" for op in causal.ops["max.0"])
    assert causal.ops["max.0"] == causal.ops["max.1"]
    assert causal.graph.trips == plain.graph.trips // 2 + 1  # in the middle of the grid


# Products


LINEAR = """
func.func @forward(%x: tensor<ROWSx512xbf16>, %w: tensor<1024x512xbf16>, %u: tensor<ROWSx1024xbf16>)
    -> tensor<ROWSx1024xbf16> {
  %y = forge.fused "linear" (%a = %x : tensor<ROWSx512xbf16>, %b = %w : tensor<1024x512xbf16>,
      %c = %u : tensor<ROWSx1024xbf16>) {
    %g = forge.linear %a, %b : (tensor<ROWSx512xbf16>, tensor<1024x512xbf16>) -> tensor<ROWSx1024xbf16>
    %h = forge.glu %g, %c activation "silu" : (tensor<ROWSx1024xbf16>, tensor<ROWSx1024xbf16>) -> tensor<ROWSx1024xbf16>
    forge.yield %h : tensor<ROWSx1024xbf16>
  } : tensor<ROWSx1024xbf16>
  func.return %y : tensor<ROWSx1024xbf16>
}
"""
TILES = {"BM": 64, "BN": 256, "BK": 64}


@pytest.mark.parametrize("name", ["sm_90a", "sm_100a"])
def test_a_linear_layer_shares_its_weights(name: str) -> None:
    model = machine.named(name)
    (kernel,) = lowered(LINEAR.replace("ROWS", "1024"), TILES)
    extracted = extract(kernel, model, parts=2)
    graph = extracted.graph
    assert extracted.axis == 0
    assert [op.name for op in graph.ops] == ["load_b", "load_a.0", "dot_b.0", "load_a.1", "dot_b.1"]
    assert [read.op for read in graph.values[-3].reads] == ["dot_b.0", "dot_b.1"]
    assert graph.traffic == 2 * (2 * 64 * 64 + 256 * 64)
    sums = next(value for value in graph.values if value.name == "dot_b.0")
    assert (sums.memory, sums.size) == (("register", "tensor")[name == "sm_100a"], 64 * 256 * 4)
    assert [(read.op, read.release, read.distance) for read in sums.reads] == [("dot_b.0", 0, 1)]
    (best,) = schedules([[graph]], model)
    assert check(best, model) == []
    assert best.certificate is not None
    assert best.certificate.status == "optimal"


def test_where_ops_come_from(hopper: Machine) -> None:
    (kernel,) = lowered(LINEAR.replace("ROWS", "128"), TILES)
    graph = extract(kernel, hopper).graph
    assert {op.source for op in graph.ops} == {"model.mlir:6"}
    assert extract(kernel, hopper).graph == graph


def test_a_dynamic_extent_is_given_or_assumed(hopper: Machine) -> None:
    text = LINEAR.replace("512", "?").replace("ROWS", "128")
    text = text.replace("tensor<128x?xbf16>", "tensor<128x?xbf16, #forge.tensor<[s0]>>")
    text = text.replace("tensor<1024x?xbf16>", "tensor<1024x?xbf16, #forge.tensor<[s0]>>")
    (kernel,) = lowered(text, TILES)
    assert extract(kernel, hopper, shape={"n0": 4096}).graph.trips == 64
    with remarks.collected() as said:
        assert extract(kernel, hopper).graph.trips == 2
    assert "depends on n0" in said[0].message
    assert "no symbol n7" in refusal(kernel, hopper, shape={"n7": 1})


def test_weights_that_are_decoded_go_through_shared_memory(hopper: Machine) -> None:
    text = """
!B = !tile.block<tensor<128x256xbf16>>
tile.kernel @decoded(%x : !B, %w : !tile.block<tensor<64x256xi8>>, %y : !tile.block<tensor<128x64xf32>>) writes [2]
    tiles [BM over 128] grid [2] bound {BM = 64} {
  %p = tile.program_id 0
  %m = tile.index p0 * 64 (%p) : (index) -> index
  %f = arith.constant 0.0 : f32
  %start = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %zero = tile.index 0 () : () -> index
  %end = tile.index 256 () : () -> index
  %step = tile.index 64 () : () -> index
  %r = scf.for %k = %zero to %end step %step iter_args(%acc = %start) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%m, %k] : !B -> tensor<64x64xbf16>
    %b = tile.load %w[%zero, %k] : !tile.block<tensor<64x256xi8>> -> tensor<64x64xi8>
    %c = arith.sitofp %b : tensor<64x64xi8> to tensor<64x64xbf16>
    %d = tile.dot %a, %c into %acc transposed : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
    scf.yield %d : tensor<64x64xf32>
  }
  tile.store %r, %y[%m, %zero] : tensor<64x64xf32>, !tile.block<tensor<128x64xf32>>
  tile.return
}"""
    (kernel,) = bound(parse(text), None)
    graph = extract(kernel, hopper, parts=2).graph
    memories = {value.name: value.memory for value in graph.values}
    assert memories["a.0"] == "shared"
    assert memories["b"] == "register"
    assert memories["c"] == "shared"
    assert check(schedules([[graph]], hopper)[0], hopper) == []


# Loops that memory bounds


def test_softmax_of_long_rows_is_two_loops(hopper: Machine) -> None:
    text = """
func.func @forward(%x: tensor<64x32768xf32>) -> tensor<64x32768xf32> {
  %y = forge.softmax %x dim 1 : (tensor<64x32768xf32>) -> tensor<64x32768xf32>
  func.return %y : tensor<64x32768xf32>
}
"""
    (kernel,) = kernels_of(parse(text_of(lowered(text, pipeline=ON_HOPPER)[0].parent_op())))  # type: ignore[arg-type] - a module
    assert "2 loops" in refusal(kernel, hopper)
    first, second = phases(kernel, hopper)
    assert [op.name for op in first.graph.ops] == ["load_arg0", "max"]
    assert [op.name for op in second.graph.ops] == ["load_arg0", "exp"]
    # The row's maximum is there all the time.
    (outer,) = (value for value in second.graph.values if value.name.startswith("outer"))
    assert [(read.op, read.release, read.distance) for read in outer.reads] == [("exp", 0, 1)]
    (best,) = schedules([[first.graph, second.graph]], hopper)
    assert check(best, hopper) == []


def test_a_norm_that_goes_over_its_rows_twice(hopper: Machine) -> None:
    text = """
!B = !tile.block<tensor<64x4096xf32>>
!T = tensor<16x128xf32>
!R = tensor<16xf32>
tile.kernel @rms_norm(%x : !B, %y : !B) writes [1] tiles [BM over 64] grid [4] bound {BM = 16} {
  %p = tile.program_id 0
  %m = tile.index p0 * 16 (%p) : (index) -> index
  %f = arith.constant 0.0 : f32
  %start = tile.broadcast %f along [] : f32 -> !R
  %zero = tile.index 0 () : () -> index
  %end = tile.index 4096 () : () -> index
  %step = tile.index 128 () : () -> index
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %start) -> (!R) {
    %a = tile.load %x[%m, %k] : !B -> !T
    %s = arith.mulf %a, %a : !T
    %t = tile.reduce "add" %s axis 1 : !T -> !R
    %u = arith.addf %acc, %t : !R
    scf.yield %u : !R
  }
  %scale = math.rsqrt %sum : !R
  scf.for %k = %zero to %end step %step {
    %a = tile.load %x[%m, %k] : !B -> !T
    %b = tile.broadcast %scale along [0] : !R -> !T
    %c = arith.mulf %a, %b : !T
    tile.store %c, %y[%m, %k] : !T, !B
  }
  tile.return
}"""
    (kernel,) = bound(parse(text), None)
    first, second = phases(kernel, hopper)
    assert [(op.name, op.role) for op in first.graph.ops] == [("load_a", "load"), ("u", "elementwise")]
    assert [(op.name, op.role) for op in second.graph.ops] == [
        ("load_a", "load"), ("c", "elementwise"), ("store_y", "store")
    ]  # fmt: skip
    assert first.graph.work == second.graph.work == 16 * 128
    (best,) = schedules([[first.graph, second.graph]], hopper)
    assert check(best, hopper) == []


def test_what_a_loop_writes_and_reads_keeps_its_order(hopper: Machine) -> None:
    text = """
!B = !tile.block<tensor<64x256xf32>>
!T = tensor<16x64xf32>
tile.kernel @in_place(%x : !B) writes [0] updates [0] tiles [BM over 64] grid [4] bound {BM = 16} {
  %p = tile.program_id 0
  %m = tile.index p0 * 16 (%p) : (index) -> index
  %zero = tile.index 0 () : () -> index
  %end = tile.index 256 () : () -> index
  %step = tile.index 64 () : () -> index
  scf.for %k = %zero to %end step %step {
    %a = tile.load %x[%m, %k] : !B -> !T
    %c = arith.mulf %a, %a : !T
    tile.store %c, %x[%m, %k] : !T, !B
  }
  tile.return
}"""
    (kernel,) = bound(parse(text), None)
    graph = extract(kernel, hopper).graph
    found = {(each.source, each.target, each.distance) for each in graph.dependences}
    assert {("load_a", "store_x", 0), ("store_x", "load_a", 1)} <= found


BRANCH = """
!B = !tile.block<tensor<64x256xf32>>
!T = tensor<16x64xf32>
tile.kernel @branch(%x : !B, %y : !B) writes [1] tiles [BM over 64] grid [4] bound {BM = 16} {
  %p = tile.program_id 0
  %m = tile.index p0 * 16 (%p) : (index) -> index
  %zero = tile.index 0 () : () -> index
  %end = tile.index 256 () : () -> index
  %step = tile.index 64 () : () -> index
  %outer = tile.load %x[%m, %zero] : !B -> !T
  scf.for %k = %zero to %end step %step {
    %c = arith.cmpi slt, %k, %m : index
    %a = tile.load %x[%m, %k] : !B -> !T
    %d = scf.if %c -> (!T) {
      %e = OP
      %f = math.exp %e : !T
      scf.yield %f : !T
    } else {
      scf.yield %outer : !T
    }
    tile.store %d, %y[%m, %k] : !T, !B
  }
  tile.return
}"""


def test_a_branch_is_one_op_that_reads_what_is_around_it(hopper: Machine) -> None:
    (kernel,) = bound(parse(BRANCH.replace("OP", "arith.mulf %a, %outer : !T")), None)
    extracted = extract(kernel, hopper)
    assert [op.kind for op in extracted.graph.ops if extracted.ops[op.name][0].name == "scf.if"] == ["exp2"]
    found = {(value.producer, read.op) for value in extracted.graph.values for read in value.reads}
    assert {("load_a", "d"), ("d", "d"), ("d", "store_y")} <= found
    product = "tile.dot %a, %a into %outer : !T, !T -> !T".replace("!T", "tensor<16x16xf32>")
    text = BRANCH.replace("OP", product).replace("tensor<16x64xf32>", "tensor<16x16xf32>")
    (kernel,) = bound(parse(text), None)
    assert "a product in a branch" in refusal(kernel, hopper)


GATHER = """
!I = tensor<16x32xindex>
!M = tensor<16x32xi1>
tile.kernel @gather(%x : !tile.block<tensor<4096xbf16>>, %w : !tile.block<tensor<16x256xbf16>>, %m : !tile.block<tensor<16x32xi1>>, %y : !tile.block<tensor<16x16xf32>>) writes [3] grid [1] {
  %zero = tile.index 0() : () -> index
  %end = tile.index 256() : () -> index
  %step = tile.index 32() : () -> index
  %f = arith.constant 0.0 : f32
  %start = tile.broadcast %f along [] : f32 -> tensor<16x16xf32>
  %mask = tile.load %m[%zero, %zero] : !tile.block<tensor<16x32xi1>> -> !M
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %start) -> (tensor<16x16xf32>) {
    %r = tile.range : tensor<32xindex>
    %places = tile.index p0 + p1(%k, %r) : (index, tensor<32xindex>) -> tensor<32xindex>
    %all = tile.broadcast %places along [1] : tensor<32xindex> -> !I
    %a = tile.gather %x[%all] mask %mask : !tile.block<tensor<4096xbf16>>, !I mask !M -> tensor<16x32xbf16>
    %b = tile.load %w[%zero, %k] : !tile.block<tensor<16x256xbf16>> -> tensor<16x32xbf16>
    %d = tile.dot %a, %b into %acc transposed : tensor<16x32xbf16>, tensor<16x32xbf16> -> tensor<16x16xf32>
    scf.yield %d : tensor<16x16xf32>
  }
  tile.store %sum, %y[%zero, %zero] : tensor<16x16xf32>, !tile.block<tensor<16x16xf32>>
  tile.return
}"""  # noqa: E501 - types of IR are long


@pytest.mark.parametrize("target", ["sm_80", "sm_90a", "sm_100a"])
def test_a_copy_does_not_wait_for_the_one_before_because_of_a_mask_from_outside(target: str) -> None:
    (kernel,) = bound(parse(GATHER), None)
    model = machine.named(target)
    graph = extract(kernel, model).graph
    load, hold = graph.op("load_a"), graph.op("hold_mask_load_a")
    (mask,) = (value for value in graph.values if value.name == "mask_load_a")
    assert (hold.issue, hold.latency, mask.producer, mask.size) == (0, 0, "hold_mask_load_a", 16 * 32)
    assert lower_bounds(graph, model)[0].cycles < load.latency
    warp, _, best = scheduled(kernel, target, 1)
    assert check(best, model) == []
    assert best.depths["mask_load_a"] == 1
    assert_same(kernel, warp, [], range(3))


# What has no graph


def test_refusals(hopper: Machine, blackwell: Machine) -> None:
    kernel = attention(64, 64, 64, 1024)
    assert "16 programs along axis 1 of its grid, which 3 parts do not divide" in refusal(kernel, hopper, parts=3)
    assert "0 parts" in refusal(kernel, hopper, parts=0)
    poor = replace(hopper, instructions={k: v for k, v in hopper.instructions.items() if k != "exp2"})
    said = refusal(kernel, poor)
    assert "has no instruction exp2" in said
    assert "model.mlir:4" in said
    (unbound,) = lowered(LINEAR.replace("ROWS", "128"))
    assert "not bound" in refusal(unbound, hopper)
    (exact,) = lowered(LINEAR.replace("bf16", "f32").replace("ROWS", "128"), TILES)
    assert "has no instruction mma.f32" in refusal(exact, hopper)


def test_graphs_of_a_file(hopper: Machine, tmp_path: Path) -> None:
    path = tmp_path / "kernels.mlir"
    module = attention(64, 64, 64, 64 * 6).parent_op()
    path.write_text(text_of(module))  # type: ignore[arg-type] - a module
    found = graphs(path, hopper)
    assert [graph.tile["parts"] for (graph,) in found] == [1, 2, 3]
    assert [graph.work / found[0][0].work for (graph,) in found] == [1, 2, 3]
    two = tmp_path / "two.mlir"
    (linear,) = lowered(LINEAR.replace("ROWS", "128"), TILES)
    two.write_text(text_of(module) + text_of(linear.parent_op()))  # type: ignore[arg-type] - the same
    with pytest.raises(ForgeError, match="2 kernels"):
        graphs(two, hopper)
    assert graphs(two, hopper, name=linear.sym_name.data)[0][0].name == linear.sym_name.data
    nothing = tmp_path / "nothing.mlir"
    nothing.write_text("builtin.module {}")
    with pytest.raises(ForgeError, match="has no tile kernel"):
        graphs(nothing, hopper)
    with pytest.raises(ForgeError, match="cannot be read"):
        graphs(tmp_path / "missing.mlir", hopper)


@pytest.mark.parametrize("name", ["attention", "matmul", "linear", "moe", "convolution"])
def test_every_example_of_an_op_with_products(name: str) -> None:
    texts = [module_of(text) for text in FORGE_EXAMPLES if f"forge.{name}" in text and "func.func" in module_of(text)]
    models = [any_machine(), any_machine("tensor")]
    kernels = [kernel for text in texts for kernel in lowered(text, pipeline=ON_HOPPER) if loops_of(kernel)]
    for kernel in kernels:
        for model in models:
            for phase in phases(kernel, model):
                assert len(phase.graph.ops) <= MOST_OPS
                products = sum(isinstance(op, DotOp) for op in phase.loop.body.block.ops)
                assert sum(op.role == "mma" for op in phase.graph.ops) == products
    assert kernels
