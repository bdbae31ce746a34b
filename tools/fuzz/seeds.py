"""The sound artifacts that mutants are made of: small models that use every part of the format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import forgec
from forgec.runtime import write_artifact
from tests.runtime.native import native, scaled

KERNELS = "kernels"


class Mlp(torch.nn.Module):
    """Static shapes: buffers with offsets, views, in-place operations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.up = torch.nn.Linear(8, 16)
        self.down = torch.nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Attention(torch.nn.Module):
    """A dynamic extent, results that ATen allocates, a dict of results, an argument with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(32, 16)
        self.project = torch.nn.Linear(16, 48)
        self.out = torch.nn.Linear(16, 32)

    def forward(self, tokens: torch.Tensor, *, causal: bool = True) -> dict[str, torch.Tensor]:
        batch, length = tokens.shape
        x = self.embed(tokens)
        q, k, v = self.project(x).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).reshape(batch, length, 16)
        best = torch.topk(self.out(y), 2, dim=-1)
        return {"values": best.values, "indices": best.indices}


class Cache(torch.nn.Module):
    """State that calls write, with an update of a few elements in place."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: torch.Tensor
        self.count: torch.Tensor
        self.register_buffer("rows", torch.arange(24.0).view(6, 4))
        self.register_buffer("count", torch.zeros(1))

    def forward(self, row: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.rows.index_copy_(0, at, row)
        self.count.add_(1.0)
        return self.rows.sum(0) + self.count, torch.softmax(self.rows, -1)


class Picture(torch.nn.Module):
    """Convolution, a fallback, several element types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = F.max_pool2d(F.relu(self.conv(x)), 2)
        return torch.where(mask, y.flatten(1).to(torch.bfloat16), torch.tensor(0, dtype=torch.bfloat16)).cumsum(-1)


class Control(torch.nn.Module):
    """Entries that other entries call, and an extent that only the run tells."""

    def forward(self, x: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = torch.cond(x.sum() > 0, lambda x: x * 2 + 1, lambda x: x.sin() - 1, (x,))
        _, looped = torch.while_loop(lambda left, y: left > 0, lambda left, y: (left - 1, y * 1.5 + 1), (count, chosen))
        return chosen, looped, torch.nonzero(x[0] > 0) + 1


@dataclass(frozen=True)
class Seed:
    """A sound artifact, and the calls of one session with their right answers.

    ``outside`` is the file with the weights where they are not in the artifact, ``outside_name`` its name.
    """

    name: str
    content: bytes
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    answers: tuple[Any, ...]
    outside: bytes | None = None

    @property
    def outside_name(self) -> str:
        return f"{self.name}.safetensors"


def make(folder: Path) -> list[Seed]:
    """Compiles the models. Deterministic, and with one thread, so that the process may be forked."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    length = torch.export.Dim("length", min=1, max=64)
    rows = torch.randn(3, 1, 4)
    mask = torch.rand(2, 16) < 0.5
    tokens = [torch.randint(0, 32, (2, size)) for size in (5, 9, 5)]
    cases: list[tuple[str, torch.nn.Module, list[tuple[Any, ...]], dict[str, Any]]] = [
        ("mlp", Mlp(), [(torch.randn(4, 8),) for _ in range(3)], {}),
        ("attention", Attention(), [(ids,) for ids in tokens], {"dynamic_shapes": {"tokens": {1: length}}}),
        ("cache", Cache(), [(rows[i], torch.tensor([i])) for i in range(3)], {}),
        ("control", Control(), [(torch.randn(2, 6), torch.tensor(count)) for count in (0, 3, 5)], {}),
        ("picture", Picture(), [(torch.randn(2, 3, 4, 4), mask) for _ in range(3)], {}),
    ]
    found = [
        _kernels(folder),
        *(_compile(folder, name, model.eval(), calls, options) for name, model, calls, options in cases),
    ]
    _, model, calls, _ = cases[0]
    return [*found, _compile(folder, "external", model, calls, {}, external=True)]


def _kernels(folder: Path) -> Seed:
    """Machine code: launches of two kernels, over a dynamic extent."""
    path = folder / f"{KERNELS}.forge"
    write_artifact(path, scaled(), {}, kernels=native("double_it", "scale_rows"), ir={"plan": "builtin.module {}"})
    calls = [(torch.randn(rows, 6), torch.randn(rows)) for rows in (3, 7, 3)]
    answers = tuple(x * 4 * s[:, None] for x, s in calls)
    return Seed(KERNELS, path.read_bytes(), tuple((args, {}) for args in calls), answers)


def _compile(
    folder: Path,
    name: str,
    model: torch.nn.Module,
    calls: list[tuple[Any, ...]],
    options: dict[str, Any],
    external: bool = False,
) -> Seed:
    path = folder / f"{name}.forge"
    forgec.compile(model, calls[0], **options).save(path, external_weights=external)
    loaded = forgec.load(path, threads=1)
    answers = tuple(loaded(*args) for args in calls)
    with torch.no_grad():
        for args, answer in zip(calls, answers, strict=True):
            if not same(model(*args), answer):
                raise AssertionError(f"{name} is compiled wrongly")
    outside = path.with_suffix(".safetensors").read_bytes() if external else None
    return Seed(name, path.read_bytes(), tuple((args, {}) for args in calls), answers, outside)


def same(left: Any, right: Any) -> bool:
    """Whether two results agree, up to rounding."""
    if isinstance(left, torch.Tensor):
        if not isinstance(right, torch.Tensor) or left.dtype != right.dtype or left.shape != right.shape:
            return False
        tolerance = 1e-2 if left.dtype is torch.bfloat16 else 1e-5
        return torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (tuple, list)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right
