"""Attention in which something is done to the weights, or numbers stand in the place of scores; and with prefixes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.handwritten.attentions import Projections
from tests.models.handwritten.case import HEAD, HEADS, Case, hidden, hidden_and_padding


class Scores(Projections):
    """Scaled scores and the value, with what the models below have."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks, self.scale = nn.Parameter(torch.linspace(-1, 1, HEADS)), nn.Parameter(torch.ones(HEADS))
        self.gate = nn.Linear(HEADS * HEAD, HEADS)
        self.register_buffer("triangle", torch.tril(torch.ones(24, 24)).view(1, 1, 24, 24))
        self.register_buffer("head_mask", (torch.arange(HEADS) != 2).float())

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.heads(x)
        return q @ k.transpose(-1, -2) * HEAD**-0.5, v

    def column(self, scores: Tensor) -> Tensor:
        return self.sinks.view(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)

    def lower(self, scores: Tensor) -> Tensor:
        return self.triangle[:, :, : scores.shape[-2], : scores.shape[-1]]


class SinksFirst(Scores):
    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        s = s.masked_fill(self.lower(s) == 0, float("-inf"))
        return self.joined(torch.cat([self.column(s), s], -1).softmax(-1)[..., 1:] @ v)


class SoftmaxOfOneMore(Scores):
    """1 in the sum of the denominator: a column of zeros before the softmax."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined(F.pad(s, (1, 0)).softmax(-1)[..., 1:] @ v)


class WrongColumn(Scores):
    """The sink stays, and the first key goes."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined(torch.cat([s, self.column(s)], -1).softmax(-1)[..., 1:] @ v)


class Renormalised(Scores):
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        p = s.softmax(-1) * real[:, None, None, :]
        return self.joined(p / p.sum(-1, keepdim=True) @ v)


class MaskedExponentials(Scores):
    """The mask hides exponentials, the division comes after the product."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        e = (s - s.amax(-1, keepdim=True)).exp() * self.lower(s) * real[:, None, None, :].to(s.dtype)
        return self.joined((e @ v) / e.sum(-1, keepdim=True))


class RenormalisedWithEpsilon(Scores):
    """A row with nothing left is 0, not NaN."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        p = s.softmax(-1) * real[:, None, None, :]
        return self.joined(p / (p.sum(-1, keepdim=True) + 1e-8) @ v)


class HeadMask(Scores):
    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        p = s.masked_fill(self.lower(s) == 0, float("-inf")).softmax(-1)
        return self.joined(F.dropout(p, 0.1, self.training) * self.head_mask[None, :, None, None] @ v)


class RowsGated(Scores):
    """A gate for each row and head, and a number."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        gate = self.gate(x).sigmoid().transpose(1, 2).unsqueeze(-1)
        return self.joined((s.softmax(-1) * gate / 3) @ v)


class ColumnsGated(Scores):
    """A gate for each column and head."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        gate = self.gate(x).sigmoid().transpose(1, 2).unsqueeze(-2)
        return self.joined((s.softmax(-1) * gate) @ v)


class MaskedAgain(Scores):
    """What was filled before the softmax is 0 after it: a row with nothing left, too."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        p = s.masked_fill(~real[:, None, None, :], -1e9).softmax(-1) * real[:, None, None, :].float()
        return self.joined(p @ v)


class ColumnsZeroed(Scores):
    """Padding is 0 after the softmax only, and still counts in its sum."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        s = s.masked_fill(self.lower(s) == 0, float("-inf"))
        return self.joined(torch.where(real[:, None, None, :], s.softmax(-1), 0.0) @ v)


class TriangleAfter(Scores):
    """The future counts in the sum of the softmax, and is hidden after it."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined((s.softmax(-1) * self.lower(s)) @ v)


class FirstGpt(Scores):
    """-1e4 in the place of scores, by arithmetic; padding is added."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        b = self.lower(s)
        s = s * b + -1e4 * (1 - b)
        s = s + (1 - real[:, None, None, :].to(s.dtype)) * -10000.0
        return self.joined(s.softmax(-1) @ v)


class OldGpt(FirstGpt):
    """The same by arithmetic with a number that leaves nothing of a weight."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        b = self.lower(s)
        return self.joined((s * b - 1e10 * (1 - b)).softmax(-1) @ v)


class SmallFill(Scores):
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined(s.masked_fill(~real[:, None, None, :], -20.0).softmax(-1) @ v)


class TwoFills(Scores):
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        s = torch.where(self.lower(s) != 0, s, torch.tensor(-1e4)).masked_fill(~real[:, None, None, :], -1e9)
        return self.joined(s.softmax(-1) @ v)


class OldBert(Scores):
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined((s + (1.0 - real[:, None, None, :].to(s.dtype)) * -10000.0).softmax(-1) @ v)


class Temperatures(Scores):
    """Divided for each head, multiplied for each row."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        rows = self.gate(x).sigmoid().transpose(1, 2).unsqueeze(-1)
        return self.joined((q @ k.mT / self.scale.exp().view(-1, 1, 1) * rows).softmax(-1) @ v)


class Clamped(Scores):
    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined(s.clamp(-0.1, 0.1).softmax(-1) @ v)


class ExponentialsAlone(Scores):
    """No greatest score is subtracted."""

    def forward(self, x: Tensor) -> Tensor:
        s, v = self.scores(x)
        return self.joined(s.exp() / s.exp().sum(-1, keepdim=True) @ v)


class NoNumbers(Scores):
    """What is NaN becomes 0, wherever it came from."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s, v = self.scores(x)
        s = s.masked_fill(~real[:, None, None, :], float("-inf"))
        return self.joined(s.softmax(-1).nan_to_num(0.0) @ v)


def prefixed(keep: Callable[..., Tensor]) -> type[nn.Module]:
    """Attention that keeps what a function of rows [S, 1], columns [S], the number of columns and more says."""

    class Prefixed(Scores):
        def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
            s, v = self.scores(x)
            place = torch.arange(x.shape[1])
            kept = keep(place[:, None], place, *([] if more is None else [more[:, None, None]]))
            return self.joined(s.masked_fill(~kept, float("-inf")).softmax(-1) @ v)

    Prefixed.__name__ = keep.__name__
    return Prefixed


def prefix_by_length(i: Tensor, j: Tensor, length: Tensor) -> Tensor:
    """One length for each sequence of a batch."""
    return ((j <= i) | (j < length))[:, None]


def prefix_and_padding(i: Tensor, j: Tensor, real: Tensor) -> Tensor:
    return ((j <= i) | (j < 3)) & real


def global_tokens(i: Tensor, j: Tensor) -> Tensor:
    """Longformer's columns, without its rows."""
    return ((i - j).abs() < 3) | (j < 2)


def window_and_first(i: Tensor, j: Tensor) -> Tensor:
    """Each condition has its exception: the same."""
    return ((i - j < 3) | (j < 2)) & ~((j > i) & (j >= 2))


def first_in_the_past(i: Tensor, j: Tensor) -> Tensor:
    """The window has an exception, causality has none."""
    return ((i - j < 3) | (j < 2)) & (j <= i)


def global_rows(i: Tensor, j: Tensor) -> Tensor:
    return ((i - j).abs() < 3) | (j < 2) | (i < 2)


def lengths(batch: int, length: int) -> tuple[Tensor, ...]:
    return (*hidden(batch, length), torch.arange(batch) % length)


WEIGHTS = [
    Case(SinksFirst, hidden, ("causal sinks",), varies=("bs",)),
    Case(SoftmaxOfOneMore, hidden, ("sinks",), varies=("bs",)),
    Case(WrongColumn, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(Renormalised, hidden_and_padding, ("keys",), varies=("bs", "bs")),
    Case(MaskedExponentials, hidden_and_padding, ("causal keys",), varies=("bs", "bs")),
    Case(RenormalisedWithEpsilon, hidden_and_padding, left={"softmax": 1, "product": 2, "norm": 1}),
    Case(HeadMask, hidden, ("causal",), varies=("bs",)),
    Case(RowsGated, hidden, ("",), varies=("bs",)),
    Case(ColumnsGated, hidden, ("",), varies=("bs",)),
    Case(MaskedAgain, hidden_and_padding, ("keys",), varies=("bs", "bs")),
    Case(ColumnsZeroed, hidden_and_padding, ("causal",), varies=("bs", "bs")),
    Case(TriangleAfter, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(FirstGpt, hidden_and_padding, ("bias replaced",), varies=("bs", "bs")),
    Case(OldGpt, hidden, ("causal",), varies=("bs",)),
    Case(SmallFill, hidden_and_padding, ("bias replaced",), varies=("bs", "bs")),
    Case(TwoFills, hidden_and_padding, ("bias keys replaced",), varies=("bs", "bs")),
    Case(OldBert, hidden_and_padding, ("bias",), varies=("bs", "bs")),
    Case(Temperatures, hidden, ("",), {}, {"exp": 1}, varies=("bs",)),
    Case(Clamped, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(ExponentialsAlone, hidden, left={"exp": 1, "product": 2}, varies=("bs",)),
    Case(NoNumbers, hidden_and_padding, left={"softmax": 1, "product": 2}),
    Case(prefixed(prefix_by_length), lengths, ("causal prefix",), varies=("bs", "b")),
    Case(prefixed(prefix_and_padding), hidden_and_padding, ("causal keys prefix",), varies=("bs", "bs")),
    Case(prefixed(global_tokens), hidden, ("prefix window=3",), varies=("bs",)),
    Case(prefixed(window_and_first), hidden, ("causal prefix window=3",), varies=("bs",)),
    Case(prefixed(first_in_the_past), hidden, ("causal mask",), varies=("bs",)),
    Case(prefixed(global_rows), hidden, ("mask",), varies=("bs",)),
]
REASONS = {
    "WrongColumn": "some of its columns are dropped",
    "RenormalisedWithEpsilon": "the sum is changed by a number",
    "TriangleAfter": "masked after the softmax, and not by what the scores were",
    "Clamped": "its scores go through forge.clamp",
    "ExponentialsAlone": "it has exponentials that are no softmax",
    "NoNumbers": "its weights have other uses",
}
"""Why attention is not recognised, in parts of the remarks."""
