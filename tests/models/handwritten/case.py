"""What one hand-written model is: how it is built and called, and what is to be recognised in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import forgec

BATCH, LENGTH, WIDTH, HEADS = 2, 7, 32, 4
HEAD = WIDTH // HEADS


@dataclass(frozen=True, eq=False)
class Case:
    """One model. ``attentions`` are the words of its attention ops (``words_of`` in ``tests/passes/
    test_fuse_attention.py``, without what gives an empty row); ``counts`` says how many of the other recognised kinds
    there are; ``left`` how many ops look like parts of something that was not recognised, by kind, and may.

    ``inputs(batch, length)`` makes the arguments; ``varies`` names, for each, which dimensions are the batch and which
    the length: ``"b"``, ``"s"`` or another letter, in order. Empty: the model is for one shape.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[Tensor, ...]]
    attentions: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    varies: tuple[str, ...] = ()
    narrow: bool = True

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.build.__name__

    def model(self) -> nn.Module:
        """The model, with noise on every parameter: a bias of zero would hide that it was lost."""
        torch.manual_seed(0)
        model = self.build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        return model.requires_grad_(False)

    def arguments(self, batch: int = BATCH, length: int = LENGTH) -> tuple[Tensor, ...]:
        """The arguments of a call."""
        torch.manual_seed(batch * 100 + length)
        return self.inputs(batch, length)

    def dynamic_shapes(self) -> Any:
        """torch.export's dynamic shapes for the arguments."""
        dims = {"b": forgec.Dim("batch", min=1, max=4), "s": forgec.Dim("length", min=2, max=16)}
        return tuple({at: dims[letter] for at, letter in enumerate(text) if letter in dims} for text in self.varies)


def ids(batch: int, length: int) -> tuple[Tensor, ...]:
    """Token numbers [batch, length]."""
    return (torch.randint(0, 50, (batch, length)),)


def hidden(batch: int, length: int) -> tuple[Tensor, ...]:
    """Activations [batch, length, width]."""
    return (torch.randn(batch, length, WIDTH),)


def padding(batch: int, length: int) -> Tensor:
    """Which tokens are real [batch, length]: not the last one, in every row but the first."""
    real = torch.ones(batch, length, dtype=torch.bool)
    real[1:, -1:] = False
    return real


def hidden_and_padding(batch: int, length: int) -> tuple[Tensor, ...]:
    """Activations, and which of them are real."""
    return (*hidden(batch, length), padding(batch, length))
