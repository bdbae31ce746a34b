"""The report's peak memory beside what torch's allocator saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import forgec
from tests.models.zoo import CASES as ZOO
from tests.models.zoo import Case
from tests.models.zoo import build as build_case


def measured_peak(call: Callable[[], Any]) -> int:
    """The most bytes that torch's CPU allocator handed out at one time during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    alive = peak = 0
    results = profiler.profiler.kineto_results  # type: ignore[union-attr]
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    del kept
    return peak


class Mixer(torch.nn.Module):
    """Wide layers, norms (whose results ATen allocates) and residuals."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(layers))
        self.wide = torch.nn.ModuleList(torch.nn.Linear(width, 4 * width) for _ in range(layers))
        self.narrow = torch.nn.ModuleList(torch.nn.Linear(4 * width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=True):
            x = x + narrow(torch.nn.functional.gelu(wide(norm(x))))
        return x


class Attention(torch.nn.Module):
    """Attention, whose result ATen allocates, between projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.project(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))


CASES = [
    pytest.param(lambda: Mixer(256, 3), (1024, 256), id="mixer"),
    pytest.param(lambda: Attention(256, 4), (4, 512, 256), id="attention"),
    pytest.param(lambda: torch.nn.Softmax(-1), (512, 2048), id="softmax"),
    pytest.param(lambda: torch.nn.Conv2d(3, 64, 3), (2, 3, 64, 64), id="few channels"),
    pytest.param(lambda: torch.nn.Conv2d(64, 64, 3, stride=2), (1, 64, 56, 56), id="many channels"),
    pytest.param(lambda: torch.nn.RMSNorm(512), (256, 512), id="rms norm"),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in ZOO])
def test_small_models(case: Case) -> None:
    compiled = forgec.compile(build_case(case), case.args, case.kwargs)
    compiled(*case.args, **case.kwargs)
    arena = compiled._program.plan.entries[0].arena_bytes or 0
    measured = measured_peak(lambda: compiled(*case.args, **case.kwargs)) + arena
    assert measured == pytest.approx(compiled.report.to_dict()["peak_bytes"], rel=0.05)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch.*")
@pytest.mark.parametrize(("build", "shape"), CASES)
@pytest.mark.parametrize("pipeline", ["", "@O2"])
def test_reported_peak_is_what_the_allocator_saw(
    build: Callable[[], Any], shape: tuple[int, ...], pipeline: str
) -> None:
    x = torch.randn(*shape)
    compiled = forgec.compile(build().eval(), (x,), pipeline=pipeline)
    compiled(x)
    arena = compiled._program.plan.entries[0].arena_bytes or 0
    measured = measured_peak(lambda: compiled(x)) + arena  # the arena is kept from the first call
    reported = compiled.report.to_dict()["peak_bytes"]
    assert measured == pytest.approx(reported, rel=0.05)
    with torch.no_grad():
        model = build().eval()
        assert reported <= measured_peak(lambda: model(x)) * 1.05
