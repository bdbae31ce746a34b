"""Random kernels as cases, by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.passes.bind_tiles import bind
from tests.backends.triton.cases import Case
from tests.chooser import Seeded
from tests.ir.tile.random_kernels import RandomKernel, blocks_of, random_kernel


@dataclass(frozen=True)
class RandomCase(Case):
    """A kernel that brings its tensors, and compares results."""

    made: RandomKernel | None = None

    def tensors(self, *, float64: bool = False) -> list[torch.Tensor]:
        assert self.made is not None
        return blocks_of(self.made, self.made.fresh_outputs())

    def differences(
        self, found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], leave_out: Sequence[str] = ()
    ) -> list[str]:
        assert self.made is not None
        written = self.kernel.writes.data
        try:
            self.made.check([found[n] for n in written], [expected[n] for n in written])
        except AssertionError as failure:
            return [str(failure)]
        return []


def random_case(seed: int) -> RandomCase:
    """The case of a seed: tile extents are powers of two, what is in bounds for certain is marked."""
    chooser = Seeded(seed)
    made = random_kernel(chooser)
    module = ModuleOp([made.kernel])  # a kernel in no module has no place for its symbols
    bind(made.kernel, made.bindings(chooser, powers_of_two=True))
    made.kernel.detach()
    assert not module.ops
    text = str(made.kernel)
    return RandomCase(
        f"random_{seed}",
        made.kernel,
        dict(zip(made.kernel.symbol_names, made.symbols, strict=True)),
        ranges={} if seed % 4 == 0 else None,
        interpreted="bf16" not in text,  # which Triton's interpreter truncates to
        made=made,
    )
