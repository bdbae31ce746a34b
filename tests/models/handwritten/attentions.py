"""Attention in the ways in which people write it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.handwritten.case import HEAD, HEADS, WIDTH, Case, hidden, hidden_and_padding, padding


class Projections(nn.Module):
    """Four linears, and heads apart and together again."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(4))

    def heads(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        context = x if context is None else context
        b = x.shape[0]
        parts = self.q(x), self.k(context), self.v(context)
        return tuple(t.view(b, -1, HEADS, HEAD).transpose(1, 2) for t in parts)  # type: ignore[return-value]

    def joined(self, y: Tensor) -> Tensor:
        return self.o(y.transpose(1, 2).contiguous().view(y.shape[0], -1, WIDTH))


class EinopsEinsum(Projections):
    """vit-pytorch: rearranged by view and permute, products by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (t.reshape(*t.shape[:2], HEADS, HEAD).permute(0, 2, 1, 3) for t in qkv)
        dots = torch.einsum("b h i d, b h j d -> b h i j", q, k) * HEAD**-0.5
        out = torch.einsum("b h i j, b h j d -> b h i d", dots.softmax(dim=-1), v)
        return self.o(out.permute(0, 2, 1, 3).reshape(*x.shape))


class TimmFused(Projections):
    """timm: one linear, reshape to five dimensions, unbind, the query scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        attn = (q * HEAD**-0.5) @ k.transpose(-2, -1)
        return self.o((attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c))


class Fairseq(Projections):
    """Length first, batch and heads in one dimension, bmm, padding filled in a view of four dimensions."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        b, s, _ = x.shape
        y = x.transpose(0, 1)
        q, k, v = self.q(y) * HEAD**-0.5, self.k(y), self.v(y)
        q, k, v = (t.contiguous().view(s, b * HEADS, HEAD).transpose(0, 1) for t in (q, k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        future = torch.triu(torch.full((s, s), float("-inf")), 1).type_as(x)
        scores = scores + future.unsqueeze(0)
        scores = scores.view(b, HEADS, s, s)
        scores = scores.masked_fill(~real.unsqueeze(1).unsqueeze(2), float("-inf")).view(b * HEADS, s, s)
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        out = torch.bmm(F.dropout(weights, 0.1, self.training), v)
        return self.o(out.transpose(0, 1).contiguous().view(s, b, WIDTH)).transpose(0, 1)


class Annotated(Projections):
    """The annotated transformer: masked_fill with -1e9 where the mask is 0."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        subsequent = torch.triu(torch.ones(1, s, s), diagonal=1).type(torch.uint8) == 0
        mask = (real.unsqueeze(-2) & subsequent).unsqueeze(1)
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(HEAD)
        scores = scores.masked_fill(mask == 0, -1e9)
        return self.joined(torch.matmul(scores.softmax(dim=-1), v))


class KeyTimesQuery(Projections):
    """Scores transposed: keys times queries, softmax over the keys, which are the rows."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = k @ q.transpose(-1, -2) / math.sqrt(HEAD)
        weights = scores.softmax(dim=-2)
        return self.joined(weights.transpose(-1, -2) @ v)


class ChannelsFirst(nn.Module):
    """A diffusion model's attention over pixels: convolutions, features before positions, softmax over keys last, the
    value's product from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, WIDTH)
        self.qkv, self.out = nn.Conv2d(WIDTH, 3 * WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b * HEADS, 3 * HEAD, h * w).chunk(3, dim=1)
        scale = 1 / math.sqrt(math.sqrt(HEAD))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        y = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, h, w)
        return x + self.out(y)


class PixelsByBmm(nn.Module):
    """The older form of the same: one head, bmm, the weights transposed for the value's product."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x).reshape(b, c, h * w).permute(0, 2, 1)
        k, v = self.k(x).reshape(b, c, h * w), self.v(x).reshape(b, c, h * w)
        weights = F.softmax(torch.bmm(q, k) * int(c) ** -0.5, dim=2).permute(0, 2, 1)
        return x + torch.bmm(v, weights).reshape(b, c, h, w)


class Cross(Projections):
    """From one sequence to another of another length, whose padding is masked."""

    def forward(self, x: Tensor, context: Tensor, real: Tensor) -> Tensor:
        q, k, v = self.heads(x, context)
        scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD)
        scores = scores.masked_fill(~real[:, None, None, :], torch.finfo(x.dtype).min)
        return self.joined(scores.softmax(-1) @ v)


class WindowsByShift(Projections):
    """Swin: windows are a batch, a table of relative biases, and a mask of the regions after a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(49, HEADS))
        place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        distance = (place[:, :, None] - place[:, None, :]).permute(1, 2, 0) + 3
        self.register_buffer("index", distance[..., 0] * 7 + distance[..., 1])
        region = torch.zeros(1, 8, 8, 1)
        for number, (h, w) in enumerate((a, b) for a in ((0, 4), (4, 6), (6, 8)) for b in ((0, 4), (4, 6), (6, 8))):
            region[:, h[0] : h[1], w[0] : w[1]] = number
        region = region.view(1, 2, 4, 2, 4, 1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16)
        apart = region.unsqueeze(1) - region.unsqueeze(2)
        self.register_buffer("mask", apart.masked_fill(apart != 0, -100.0))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = torch.roll(x, shifts=(-2, -2), dims=(1, 2))
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.heads(x)
        attn = (q * HEAD**-0.5) @ k.transpose(-2, -1)
        attn = attn + self.table[self.index.view(-1)].view(16, 16, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        attn = attn.view(b, 4, HEADS, 16, 16) + self.mask.unsqueeze(1).unsqueeze(0)
        y = self.joined(attn.view(-1, HEADS, 16, 16).softmax(dim=-1) @ v)
        y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, shifts=(2, 2), dims=(1, 2))


class SlidingByTriangles(Projections):
    """A window as the difference of two triangles."""

    def forward(self, x: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        ones = torch.ones(s, s, dtype=torch.bool)
        keep = torch.tril(ones) & torch.triu(ones, diagonal=-2)
        return self.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=keep))


class BandByProduct(Projections):
    """A window as a product of numbers of two triangles, whose logarithm is added."""

    def forward(self, x: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        band = torch.tril(torch.ones(s, s)) * torch.triu(torch.ones(s, s), diagonal=-2)
        scores = q @ k.mT * HEAD**-0.5 + (1.0 - band).to(x.dtype) * torch.finfo(x.dtype).min
        return self.joined(scores.softmax(-1) @ v)


class Packed(Projections):
    """Several documents in a row: a token attends to those before it with its own document's number."""

    def forward(self, x: Tensor, documents: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        place = torch.arange(s)
        keep = (documents[:, None, :, None] == documents[:, None, None, :]) & (place[:, None] >= place)
        return self.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=keep))


class Prefix(Projections):
    """The first three tokens see each other, the others what came before."""

    def forward(self, x: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        place = torch.arange(s)
        keep = (place[None, :] <= place[:, None]) | (place[None, :] < 3)
        scores = (q @ k.mT * HEAD**-0.5).masked_fill(~keep, float("-inf"))
        return self.joined(scores.softmax(-1) @ v)


class MultiQuery(Projections):
    """One head of keys and values for all queries: queries of all heads are rows of one product."""

    def __init__(self) -> None:
        super().__init__()
        self.kv = nn.Linear(WIDTH, 2 * HEAD)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        q = self.q(x).view(b, s, HEADS, HEAD).transpose(1, 2)
        k, v = self.kv(x).split(HEAD, dim=-1)
        scores = torch.einsum("bhid,bjd->bhij", q, k) * HEAD**-0.5
        keep = torch.ones(s, s, dtype=torch.bool).tril()
        scores = scores.masked_fill(~keep, -torch.finfo(x.dtype).max)
        return self.joined(torch.einsum("bhij,bjd->bhid", scores.softmax(-1), v))


class GroupedByFive(Projections):
    """Grouped queries with the groups as a dimension of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.kv = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        q = self.q(x).view(b, s, 2, HEADS // 2, HEAD).permute(0, 2, 3, 1, 4)
        k, v = self.kv(x).view(b, s, 2, 2, HEAD).permute(2, 0, 3, 1, 4)
        scores = q @ k.unsqueeze(2).transpose(-1, -2) * HEAD**-0.5
        keep = torch.ones(s, s, dtype=torch.bool).tril()
        weights = scores.masked_fill(~keep, float("-inf")).softmax(-1)
        y = weights @ v.unsqueeze(2)
        return self.o(y.permute(0, 3, 1, 2, 4).reshape(b, s, WIDTH))


class CosineScores(Projections):
    """Query and key normalised to length 1, a learned temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.transpose(-2, -1) * self.temperature.clamp(max=4.6).exp()
        return self.joined(scores.softmax(dim=-1) @ v)


class SingleHead(Projections):
    """No heads at all: three dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2) / WIDTH**0.5
        keep = torch.ones(x.shape[1], x.shape[1]).tril() == 1
        return self.o(scores.masked_fill(~keep, float("-inf")).softmax(dim=-1) @ self.v(x))


class ByHand(Projections):
    """A softmax spelled out: exponentials over their sum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-1, -2) * HEAD**-0.5
        weights = torch.exp(scores - scores.max(dim=-1, keepdim=True)[0])
        return self.joined(weights / weights.sum(dim=-1, keepdim=True) @ v)


class WeightsReturned(Projections):
    """The weights are a result, too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.heads(x)
        weights = (q @ k.transpose(-1, -2) * HEAD**-0.5).softmax(-1)
        return self.joined(weights @ v), weights


class TalkingHeads(Projections):
    """Linear maps between heads before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Parameter(torch.eye(HEADS)), nn.Parameter(torch.eye(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = torch.einsum("bhij,hg->bgij", q @ k.transpose(-1, -2) * HEAD**-0.5, self.before)
        weights = torch.einsum("bhij,hg->bgij", scores.softmax(-1), self.after)
        return self.joined(weights @ v)


class LinearAttention(Projections):
    """No softmax over scores: keys with values first."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        state = k.softmax(dim=-2).transpose(-1, -2) @ v
        return self.joined(q.softmax(dim=-1) @ state)


class TopScores(Projections):
    """Only the two greatest scores of each row count."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-1, -2) * HEAD**-0.5
        least = scores.topk(2, dim=-1).values[..., -1:]
        return self.joined(scores.masked_fill(scores < least, float("-inf")).softmax(-1) @ v)


class TorchSelf(nn.Module):
    """torch's module, with the weights that it returns not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=True)[0]


class TorchSelfPadded(TorchSelf):
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        s = x.shape[1]
        future = torch.ones(s, s, dtype=torch.bool).triu(1)
        return self.inner(x, x, x, key_padding_mask=~real, attn_mask=future, need_weights=False)[0]


class UpperBuffer(Projections):
    """A registered triangle of what is hidden, filled in place before the scores are scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.ones(24, 24), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        s = x.shape[1]
        q, k, v = self.heads(x)
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:s, :s], -torch.inf)
        return self.joined(torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1) @ v)


class AddedBuffer(TorchSelf):
    """The first CLIP's text encoder: length first, a registered mask of -inf that torch's module takes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS)
        self.register_buffer("mask", torch.full((7, 7), float("-inf")).triu_(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(1, 0, 2)
        return self.inner(y, y, y, need_weights=False, attn_mask=self.mask)[0].permute(1, 0, 2)


class TorchDecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerDecoderLayer(WIDTH, HEADS, 48, 0.1, "gelu", batch_first=True, norm_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.inner(x, memory, tgt_mask=mask)


def hidden_and_context(batch: int, length: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, length, WIDTH), torch.randn(batch, length + 2, WIDTH), padding(batch, length + 2)


def memory(batch: int, length: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, length, WIDTH), torch.randn(batch, 5, WIDTH)


def documents(batch: int, length: int) -> tuple[Tensor, ...]:
    return *hidden(batch, length), torch.randint(0, 3, (batch, length)).sort(-1).values


def image(batch: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, WIDTH, 3, length),)


def pixels(batch: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 8, 8, WIDTH),)


ATTENTIONS = [
    Case(EinopsEinsum, hidden, ("",), {"norm": 1}, varies=("bs",)),
    Case(TimmFused, hidden, ("",), varies=("bs",)),
    Case(Fairseq, hidden_and_padding, ("causal keys",), varies=("bs", "bs")),
    Case(Annotated, hidden_and_padding, ("causal keys",), varies=("bs", "bs"), narrow=False),
    Case(KeyTimesQuery, hidden, ("",), varies=("bs",)),
    Case(ChannelsFirst, image, ("",), {"norm": 1}),
    Case(PixelsByBmm, image, ("",)),
    Case(Cross, hidden_and_context, ("keys",)),
    Case(WindowsByShift, pixels, ("bias",)),
    Case(SlidingByTriangles, hidden, ("causal window=3",), varies=("bs",)),
    Case(BandByProduct, hidden, ("causal window=3",), varies=("bs",)),
    Case(Packed, documents, ("causal mask",), varies=("bs", "bs")),
    Case(Prefix, hidden, ("causal prefix",), varies=("bs",)),
    Case(MultiQuery, hidden, ("causal",), varies=("bs",)),
    Case(GroupedByFive, hidden, ("causal",), varies=("bs",)),
    Case(CosineScores, hidden, ("",), {"norm": 2}, {"exp": 1}, ("bs",)),
    Case(SingleHead, hidden, ("causal",), varies=("bs",)),
    Case(ByHand, hidden, ("",), varies=("bs",)),
    Case(WeightsReturned, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(TalkingHeads, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(LinearAttention, hidden, left={"softmax": 2, "product": 2}, varies=("bs",)),
    Case(TopScores, hidden, left={"softmax": 1, "product": 2}, varies=("bs",)),
    Case(TorchSelf, hidden, ("",)),
    Case(TorchSelfPadded, hidden_and_padding, ("causal keys",)),
    Case(UpperBuffer, hidden, ("causal",), varies=("bs",)),
    Case(AddedBuffer, hidden, ("causal",)),
    Case(TorchDecoderLayer, memory, ("causal", ""), {"norm": 3, "activation": 1}),
]
