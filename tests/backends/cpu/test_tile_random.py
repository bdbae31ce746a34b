"""Random kernels: machine code makes of them what the interpreter does, for any tile extents and on any x86-64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.ir.tile.interpreter import run_kernel
from forgec.passes.bind_tiles import bind
from tests.backends.cpu.launch import launch
from tests.backends.cpu.native import Native, register_bytes
from tests.chooser import Drawn
from tests.ir.tile.random_kernels import RandomKernel, blocks_of, random_kernel


def compare(made: RandomKernel, cpu: str) -> None:
    expected = made.fresh_outputs()
    run_kernel(made.kernel, blocks_of(made, expected), made.symbols)
    native = Native(kernel_module([made.kernel], vector_bytes=register_bytes(cpu)), cpu)
    code, found = launch(native, made.kernel, blocks_of(made, made.fresh_outputs()), made.symbols)
    assert code == 0
    made.check([found[position] for position in made.kernel.writes.data], expected)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_random_kernels(data: st.DataObject) -> None:
    chooser = Drawn(data)
    made = random_kernel(chooser)
    bind(made.kernel, made.bindings(chooser, powers_of_two=bool(chooser.integer(0, 1))))
    cpu = ("x86-64-v3", "host")[chooser.integer(0, 1)]
    with torch.no_grad():
        compare(made, cpu)
