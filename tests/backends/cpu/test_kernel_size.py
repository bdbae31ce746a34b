"""How much code kernels become, which is what they cost to compile: LLVM's instructions, not seconds."""

from __future__ import annotations

import pytest
import torch
from xdsl.dialects import llvm
from xdsl.dialects.builtin import ModuleOp

from forgec.backends.cpu.backend import lowered_kernel
from forgec.backends.cpu.compile import optimized_llvm
from forgec.capture.capture import export_model, import_program
from forgec.ir import context
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline
from tests.backends.cpu.launch import agree, compiled, kernels_of
from tests.backends.cpu.test_tile_memory import numbers
from tests.models.test_architectures import ROWS

LEVEL = "x86-64-v4"
MOST = {"attention": 1240, "linear": 760, "rms_norm": 135, "layer_norm": 170, "embedding": 200, "mul": 610, "cast": 80}
"""Instructions of the largest kernel of each kind: a fifth more than what they have."""


def functions(module: ModuleOp) -> list[llvm.FuncOp]:
    return [op for op in module.ops if isinstance(op, llvm.FuncOp)]


def instructions(module: ModuleOp) -> int:
    """Without constants, which stand in the instructions that use them."""
    return sum(
        not isinstance(op, llvm.ConstantOp)
        for func in functions(module)
        for block in func.body.blocks
        for op in block.ops
    )


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_kernels_of_a_model_are_no_larger_than_they_were(name: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    model = row.build()
    module = import_program(export_model(model, (), dict(row.arguments()), None), model).module
    run_pipeline(module, f'@O2,lower-to-tile{{panel=32}},bind-tiles{{target="cpu:{LEVEL}"}}', context=context())
    sizes: dict[str, int] = {}
    for kernel in module.ops:
        if isinstance(kernel, KernelOp):
            kind = kernel.sym_name.data.rpartition("_")[0]
            sizes[kind] = max(sizes.get(kind, 0), instructions(lowered_kernel(kernel, LEVEL)))
    assert {"attention", "linear", "embedding"} <= sizes.keys()
    assert all(size <= MOST.get(kind, 200) for kind, size in sizes.items()), sizes


def products(count: int, *, extent: str, symbols: str = "") -> str:
    """A kernel of ``count`` products of one x with parts of one w, each with a loop over the sum of its own."""
    text = f"""
tile.kernel @products(%x : !tile.block<tensor<8x?xf32, #forge.tensor<[{extent}]>>>,
    %w : !tile.block<tensor<{16 * count}x?xf32, #forge.tensor<[{extent}]>>>, %y : !tile.block<tensor<{count}x8x16xf32>>)
    {symbols} writes [2] tiles [BM over 8, BN over 16, BK over {extent}] grid [1] bound {{BM = 8, BN = 16, BK = 16}} {{
  %z = arith.constant 0 : index
  %end = tile.index {extent} () : () -> index
  %step = arith.constant 16 : index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<8x16xf32>
  %xs = tile.view %x[%z] : !tile.block<tensor<8x?xf32, #forge.tensor<[{extent}]>>>
    to !tile.block<tensor<8x?xf32, #forge.tensor<[{extent}]>>>"""
    if extent.isdigit():
        text = text.replace(f"8x?xf32, #forge.tensor<[{extent}]>", f"8x{extent}xf32")
        text = text.replace(f"{16 * count}x?xf32, #forge.tensor<[{extent}]>", f"{16 * count}x{extent}xf32")
    inner = f"{extent}xf32" if extent.isdigit() else f"?xf32, #forge.tensor<[{extent}]>"
    for n in range(count):
        text += f"""
  %o{n} = tile.index {16 * n} * {extent} () : () -> index
  %w{n} = tile.view %w[%o{n}] : !tile.block<tensor<{16 * count}x{inner}>> to !tile.block<tensor<16x{inner}>>
  %s{n} = scf.for %k{n} = %z to %end step %step iter_args(%a{n} = %init) -> (tensor<8x16xf32>) {{
    %l{n} = tile.load %xs[%z, %k{n}] : !tile.block<tensor<8x{inner}>> -> tensor<8x16xf32>
    %r{n} = tile.load %w{n}[%z, %k{n}] : !tile.block<tensor<16x{inner}>> -> tensor<16x16xf32>
    %d{n} = tile.dot %l{n}, %r{n} into %a{n} transposed : tensor<8x16xf32>, tensor<16x16xf32> -> tensor<8x16xf32>
    scf.yield %d{n} : tensor<8x16xf32>
  }}
  %t{n} = arith.constant {128 * n} : index
  %y{n} = tile.view %y[%t{n}] : !tile.block<tensor<{count}x8x16xf32>> to !tile.block<tensor<8x16xf32>>
  tile.store %s{n}, %y{n}[%z, %z] : tensor<8x16xf32>, !tile.block<tensor<8x16xf32>>"""
    return text + "\n  tile.return\n}"


def test_equal_loops_are_one_function() -> None:
    one, two, four = (lowered_kernel(kernels_of(products(count, extent="48"))[0], LEVEL) for count in (1, 2, 4))
    assert [len(functions(module)) for module in (one, two, four)] == [1, 2, 2]
    assert instructions(four) < 2 * instructions(one)
    assert "define internal" in optimized_llvm(two, cpu=LEVEL, features="", vector_bits=512)


@pytest.mark.parametrize(("extent", "size"), [("48", 48), ("40", 40), ("n0", 48), ("n0", 23), ("n0", 0)])
def test_products_in_functions_are_right(extent: str, size: int) -> None:
    native, kernels = compiled(products(3, extent=extent, symbols="" if extent.isdigit() else "symbols [n0]"))
    tensors = [numbers("f32", 8, size), numbers("f32", 48, size), torch.zeros(3, 8, 16)]
    agree(native, kernels["products"], tensors, [] if extent.isdigit() else [size])


def test_loops_of_different_constants_are_functions_of_their_own() -> None:
    text = products(2, extent="48").replace("%k1 = %z to %end", "%k1 = %step to %end")
    native, kernels = compiled(text)
    agree(native, kernels["products"], [numbers("f32", 8, 48), numbers("f32", 32, 48), torch.zeros(2, 8, 16)], [])


def test_a_loop_that_reads_a_tile_computed_there_stays_where_it_is() -> None:
    text = products(2, extent="48")
    for n in range(2):  # the second operand is a load of outside the loop, which one nest reads
        load = text[text.index(f"    %r{n} = ") : text.index(f"    %d{n} = ")]
        text = text.replace(load, "")
        text = text.replace(f"  %s{n} = scf.for", load.replace(f"%k{n}", "%z") + f"  %s{n} = scf.for")
    native, kernels = compiled(text)
    agree(native, kernels["products"], [numbers("f32", 8, 48), numbers("f32", 32, 48), torch.zeros(2, 8, 16)], [])


@pytest.mark.parametrize("divisor", [2, 3, 7, 10, 100, 641, 65537, (1 << 31) - 1])
def test_vectors_of_places_are_divided(divisor: int) -> None:
    text = f"""
tile.kernel @divide(%y : !tile.block<tensor<2x1000xi64>>) writes [0] tiles [BM over 1000] grid [1]
    bound {{BM = 1000}} {{
  %z = arith.constant 0 : index
  %one = arith.constant 1 : index
  %r = tile.range : tensor<1000xindex>
  %q = tile.index floordiv(p0, {divisor}) (%r) : (tensor<1000xindex>) -> tensor<1000xindex>
  %m = tile.index mod(p0, {divisor}) (%r) : (tensor<1000xindex>) -> tensor<1000xindex>
  %qi = arith.index_cast %q : tensor<1000xindex> to tensor<1000xi64>
  %mi = arith.index_cast %m : tensor<1000xindex> to tensor<1000xi64>
  %qs = tile.broadcast %qi along [1] : tensor<1000xi64> -> tensor<1x1000xi64>
  %ms = tile.broadcast %mi along [1] : tensor<1000xi64> -> tensor<1x1000xi64>
  tile.store %qs, %y[%z, %z] : tensor<1x1000xi64>, !tile.block<tensor<2x1000xi64>>
  tile.store %ms, %y[%one, %z] : tensor<1x1000xi64>, !tile.block<tensor<2x1000xi64>>
  tile.return
}}"""
    native, kernels = compiled(text)
    agree(native, kernels["divide"], [torch.zeros(2, 1000, dtype=torch.int64)], [])
    text = optimized_llvm(lowered_kernel(kernels["divide"], LEVEL), cpu=LEVEL, features="", vector_bits=512)
    assert "div <" not in text
    assert "rem <" not in text
