"""Models whose products round their factors to bfloat16."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import load
from forgec.runtime.processor import best, described
from tests.backends.cpu.test_short_products import HAS_FEATURES, HAS_V4
from tests.runtime.test_variants import cpuinfo, pretend

IMAGES = ["x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16"]


class Block(nn.Module):
    """Linears, some with a tied weight, attention and a GELU; 37 rows and odd widths."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 64)
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
        self.up, self.down = nn.Linear(64, 253), nn.Linear(253, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.tokens.weight
        self.norm = nn.LayerNorm(64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids)
        rows, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(rows, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(rows, length, width))
        return self.head(self.norm(x + self.down(nn.functional.gelu(self.up(x)))))


@pytest.fixture(scope="module")
def block() -> tuple[Block, torch.Tensor]:
    torch.manual_seed(0)
    return Block().eval(), torch.randint(0, 50, (2, 37))


@pytest.mark.parametrize(("rows", "steps", "columns"), [(1, 96, 40), (9, 95, 64), (37, 381, 70)])
@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:host"])
def test_a_linear_is_the_sum_of_products_of_rounded_factors(rows: int, steps: int, columns: int, target: str) -> None:
    torch.manual_seed(rows)
    model, x = nn.Linear(steps, columns, bias=False).eval(), torch.randn(rows, steps)
    found = forgec.compile(model, (x,), target=target, precision="bf16")(x).double()
    a, b = x.bfloat16().double(), model.weight.detach().bfloat16().double()
    exact = a @ b.T
    assert bool(((found - exact).abs() <= steps * 2**-22 * (a.abs() @ b.abs().T)).all())
    assert not torch.allclose(exact.float(), model(x).detach(), rtol=1e-6, atol=1e-6), "rounding shows"


def test_a_model_is_near_its_own_float64(block: tuple[Block, torch.Tensor]) -> None:
    model, ids = block
    exact = Block().eval().double()
    exact.load_state_dict(model.state_dict())
    found = forgec.compile(model, (ids,), target="cpu:host", precision="bf16")
    with torch.no_grad():
        error = (found(ids).double() - exact(ids)).abs().max() / exact(ids).abs().max()
    assert 1e-5 < error < 2**-6
    assert found.report.precision == "bf16"
    assert found.report.to_dict()["precision"] == "bf16"


def test_results_are_the_same_for_any_number_of_threads(block: tuple[Block, torch.Tensor], tmp_path: Path) -> None:
    model, ids = block
    forgec.compile(model, (ids,), target="cpu:host", precision="bf16").save(tmp_path / "m.forge")
    one, two, four = (load(tmp_path / "m.forge", threads=count)(ids) for count in (1, 2, 4))
    assert torch.equal(one, two)
    assert torch.equal(one, four)


def test_an_artifact_has_an_image_with_the_instructions_and_those_without(
    block: tuple[Block, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = block
    compiled = forgec.compile(model, (ids,), target="cpu", precision="bf16")
    compiled.save(tmp_path / "m.forge")
    machines = [("x86-64-v3", True), ("x86-64-v4", HAS_V4), ("x86-64-v4,avx512bf16", HAS_FEATURES)]
    found = []
    for (text, is_here), expected in zip(machines, IMAGES, strict=True):
        with monkeypatch.context() as here:
            pretend(here, tmp_path, cpuinfo(*text.split(",")))
            loaded = load(tmp_path / "m.forge", threads=1) if is_here else None
        images = compiled._kernels
        chosen = best(images, described(text))
        assert chosen is not None
        assert chosen.table.image == expected
        if loaded is not None:
            assert [image.table.image for image in loaded.artifact.images] == IMAGES
            assert loaded.artifact.manifest["precision"] == "bf16"
            found.append(loaded(ids))
    for a, b in product(found, found):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


def test_models_without_the_option_have_no_further_image(block: tuple[Block, torch.Tensor]) -> None:
    model, ids = block
    compiled = forgec.compile(model, (ids,), target="cpu")
    assert [image.table.image for image in compiled._kernels] == IMAGES[:2]
    assert compiled.report.precision == "float32"


def test_models_of_bfloat16_use_the_instructions_too() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(128, 64).bfloat16().eval(), torch.randn(30, 128).bfloat16()
    compiled = forgec.compile(model, (x,), target="cpu", precision="bf16")
    assert [image.table.image for image in compiled._kernels] == IMAGES
    exact = x.double() @ model.weight.double().T + model.bias.double()
    torch.testing.assert_close(compiled(x).double(), exact.detach(), rtol=2**-7, atol=2**-8)


def test_what_makes_no_sense_is_refused() -> None:
    model, x = nn.Linear(8, 8).eval(), torch.randn(2, 8)
    with pytest.raises(ForgeError, match=r"FORGE-U005.*no kernels whose products"):
        forgec.compile(model, (x,), target="cpu:aten", precision="bf16")
    with pytest.raises(ForgeError, match=r"FORGE-U005.*precision is 'fp8'"):
        forgec.compile(model, (x,), precision="fp8")  # type: ignore[arg-type]
