"""Random kernels: one result for all tile extents and all orders of programs, bound by the pass or not."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from forgec.ir.tile.interpreter import default_bindings, run_kernel
from forgec.ir.verify import verify_module
from forgec.passes.bind_tiles import bind
from tests.chooser import Drawn
from tests.ir.build import parse, text_of
from tests.ir.tile.random_kernels import RandomKernel, blocks_of, random_kernel


def results(made: RandomKernel, bindings: dict[str, int], order: list[int] | None = None) -> list[torch.Tensor]:
    outputs = made.fresh_outputs()
    run_kernel(made.kernel, blocks_of(made, outputs), made.symbols, bindings, order)
    return outputs


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_tile_extents_and_the_order_of_programs_change_nothing(data: st.DataObject) -> None:
    chooser = Drawn(data)
    made = random_kernel(chooser)
    expected = results(made, default_bindings(made.kernel, made.symbols))
    bindings = made.bindings(chooser, powers_of_two=bool(chooser.integer(0, 1)))
    values = {**dict(zip(made.kernel.symbol_names, made.symbols, strict=True)), **bindings}
    programs = list(range(torch.Size(made.kernel.programs(values)).numel()))
    random.Random(chooser.integer(0, 1000)).shuffle(programs)
    made.check(results(made, bindings, programs), expected)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_bound_kernels_compute_the_same_and_are_in_bounds_where_they_say_so(data: st.DataObject) -> None:
    chooser = Drawn(data)
    made = random_kernel(chooser)
    bindings = made.bindings(chooser, powers_of_two=bool(chooser.integer(0, 1)))
    expected = results(made, bindings)
    module = ModuleOp([made.kernel])
    bind(made.kernel, bindings)
    verify_module(module)
    made.check(results(made, {}), expected)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_kernels_survive_printing_and_parsing(data: st.DataObject) -> None:
    made = random_kernel(Drawn(data))
    module = ModuleOp([made.kernel])
    verify_module(module)
    printed = text_of(module)
    assert text_of(parse(printed)) == printed
    assert text_of(parse(text_of(module, print_generic_format=True))) == printed
