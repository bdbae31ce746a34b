"""The choice of tile extents: candidates, limits, and what the pass refuses."""

from __future__ import annotations

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.ir import context
from forgec.ir.interpreter import interpret
from forgec.ir.tile.cost import kernel_cost
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.verify import verify_module
from forgec.passes import pipelines
from forgec.passes.bind_tiles import bind
from forgec.passes.manager import run_pipeline
from forgec.passes.tile_machines import MACHINES
from forgec.passes.tile_sizes import SymbolUse, candidates, symbol_uses
from tests.ir.build import parse
from tests.ir.tile.kernels import MATMUL, MATMUL_TYPES, SCALE, SCALE_TYPES, SOFTMAX, SOFTMAX_TYPES, kernel_of, module_of

TARGETS = sorted(MACHINES)
SIZES = {"n0": SymbolUse(1, 2048, 512), "n1": SymbolUse(100, 100, 100), "n2": SymbolUse(256, 256, 256)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("text", "types"), [(SCALE, SCALE_TYPES), (SOFTMAX, SOFTMAX_TYPES), (MATMUL, MATMUL_TYPES)])
def test_candidates_are_what_the_machine_takes(text: str, types: dict[str, str], target: str) -> None:
    machine = MACHINES[target]
    table = candidates(kernel_of(text, types), target, SIZES)
    assert table[0].limit is None
    assert len(table) == len({c.text for c in table})
    for candidate in table:
        fits = candidate.live_bytes <= machine.live_limit
        assert fits or candidate.limit is not None
        for name, extent in candidate.bindings.items():
            whole = text is SOFTMAX and name == "BN"
            assert extent == machine.whole(100) or (not whole and extent in (*machine.over, *machine.over_long))
            assert text is not MATMUL or extent >= machine.dot_least
    fitting = [c for c in table if c.limit is None]
    assert table[: len(fitting)] == fitting


def test_whole_axes_are_rounded_to_what_the_machine_wants() -> None:
    kernel = kernel_of(SOFTMAX, SOFTMAX_TYPES)
    assert {c.bindings["BN"] for c in candidates(kernel, "cpu", SIZES)} == {112}
    assert {c.bindings["BN"] for c in candidates(kernel, "cuda:sm_90a", SIZES)} == {128}


def test_an_axis_without_an_upper_bound_cannot_be_whole() -> None:
    kernel = kernel_of(SOFTMAX, SOFTMAX_TYPES)
    assert candidates(kernel, "cpu", {**SIZES, "n1": SymbolUse(1, None, 128)}) == []
    assert candidates(kernel, "cpu", SIZES, {"BN": 64}) == []
    assert {c.bindings["BN"] for c in candidates(kernel, "cpu", SIZES, {"BN": 128})} == {128}


def test_large_products_take_large_tiles_and_many_programs() -> None:
    uses = {name: SymbolUse(4096, 4096, 4096) for name in ("n0", "n1", "n2")}
    best = candidates(kernel_of(MATMUL, MATMUL_TYPES), "cuda:sm_90a", uses)[0]
    assert best.bindings["BM"] * best.bindings["BN"] >= 64 * 64
    assert best.programs >= MACHINES["cuda:sm_90a"].units
    again = 2 * 4096 * 4096 * 4 * 4096 // min(best.bindings["BM"], best.bindings["BN"])
    assert best.moved_bytes <= again + 4096 * 4096 * 4
    assert best.dot_flops == 2 * 4096**3


def test_a_pad_that_goes_takes_its_offsets_along_once() -> None:
    text = SCALE.replace(
        "  %w = arith.mulf %v, %cs",
        """  %z = arith.constant 0 : index
  %a = tile.index p0 + p1 (%z, %z) : (index, index) -> index
  %i = tile.pad %v[%a] within [BM] other 0.0 : !T
  %w = arith.mulf %i, %cs""",
    )
    kernel = kernel_of(text, SCALE_TYPES)
    bind(kernel, {"BM": 8})
    assert [op.name for op in kernel.walk()] == [op.name for op in kernel_of(SCALE, SCALE_TYPES).walk()]


CALLS = """
forge.symbol @s0 "seq" min 2 max 300
forge.symbol @s1 "batch" min 1
func.func @forward(%a : tensor<?xf32, #forge.tensor<[s0]>>, %b : tensor<?xf32, #forge.tensor<[s0 * 2 + 1]>>)
    -> (tensor<?xf32, #forge.tensor<[s0]>>, tensor<?xf32, #forge.tensor<[s0 * 2 + 1]>>) {
  %y = tile.launch @scale(%a) [s0] writes [1] updates [] : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
  %z = tile.launch @scale(%b) [s0 * 2 + 1] writes [1] updates [] : (tensor<?xf32, #forge.tensor<[s0 * 2 + 1]>>) -> tensor<?xf32, #forge.tensor<[s0 * 2 + 1]>>
  func.return %y, %z : tensor<?xf32, #forge.tensor<[s0]>>, tensor<?xf32, #forge.tensor<[s0 * 2 + 1]>>
}"""  # noqa: E501 - lines of IR


def test_what_symbols_stand_for_at_all_launches() -> None:
    module = module_of(SCALE + CALLS, SCALE_TYPES)
    (kernel,) = (op for op in module.ops if isinstance(op, KernelOp))
    assert symbol_uses(kernel, module) == {"n0": SymbolUse(2, 601, 257)}


@pytest.mark.parametrize("target", TARGETS)
def test_bound_kernels_compute_the_same(target: str) -> None:
    module = module_of(SCALE + CALLS, SCALE_TYPES)
    inputs = [torch.randn(70), torch.randn(141)]
    before = interpret(module, inputs)
    text = f'bind-tiles{{target="{target}"}}'
    run_pipeline(module, pipelines.parse(text), context=context())
    verify_module(module)
    assert all(op.is_bound for op in module.ops if isinstance(op, KernelOp))
    assert all(torch.equal(a, b) for a, b in zip(interpret(module, inputs), before, strict=True))


def test_an_axis_that_no_tile_is_certain_to_hold_leaves_a_remark() -> None:
    module = module_of(SOFTMAX, SOFTMAX_TYPES)
    (run,) = run_pipeline(module, pipelines.parse("bind-tiles"), context=context())
    assert [remark.message for remark in run.remarks] == ["softmax has no tile extents"]
    assert run.remarks[0].notes == ("no tile is certain to hold all of BN whole n1",)


@pytest.mark.parametrize("options", ['target="cuda:sm_1"', 'tiles="BM"', 'tiles="BM=0"', 'tiles="BM=x"'])
def test_options_that_say_nothing(options: str) -> None:
    module = module_of(SCALE, SCALE_TYPES)
    with pytest.raises(ForgeError) as caught:
        run_pipeline(module, pipelines.parse(f"bind-tiles{{{options}}}"), context=context())
    assert caught.value.diagnostics[0].code == "FORGE-P002"


SECTIONS = """
func.func @forward(%x : tensor<64x128xf32>, %w : tensor<32x128xf32>, %y : tensor<64x8xf32>) -> tensor<64x40xf32> {
  %r = forge.fused "linear" (%a = %x : tensor<64x128xf32>, %b = %w : tensor<32x128xf32>, %c = %y : tensor<64x8xf32>) {
    %0 = forge.linear %a, %b : (tensor<64x128xf32>, tensor<32x128xf32>) -> tensor<64x32xf32>
    %1 = forge.concat %0, %c dim 1 : (tensor<64x32xf32>, tensor<64x8xf32>) -> tensor<64x40xf32>
    forge.yield %1 : tensor<64x40xf32>
  } : tensor<64x40xf32>
  func.return %r : tensor<64x40xf32>
}
"""


@pytest.mark.parametrize("target", TARGETS)
def test_sections_cost_what_their_own_programs_do(target: str) -> None:
    module = parse(SECTIONS)
    run_pipeline(module, "lower-to-tile", context=context())
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    assert len(kernel_cost(kernel).sections) == 2
    best = candidates(kernel, target)[0]
    assert best.dot_flops == 2 * 64 * 32 * 128  # the copy's programs multiply nothing
    cost = kernel_cost(kernel).at(best.bindings)
    assert cost.programs == sum(count for _, count in cost.sections) == best.programs
    assert cost.launch.bytes_written == 64 * 40 * 4


def test_code_of_products_is_short_on_a_gpu() -> None:
    kernel = kernel_of(MATMUL, MATMUL_TYPES)
    uses = {name: SymbolUse(4096, 4096, 4096) for name in ("n0", "n1", "n2")}
    for target in TARGETS:
        limit = MACHINES[target].unrolled_limit
        best = candidates(kernel, target, uses)[0]
        code = kernel_cost(kernel).at(best.bindings).dot_code
        assert isinstance(code, int)
        assert best.limit is None
        assert limit is None or code <= limit
