"""Small language models in the ways in which people write them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.handwritten.case import HEAD, HEADS, WIDTH, Case, ids

VOCABULARY = 50


class NanoBlock(nn.Module):
    """GPT-2's block: one linear for query, key and value, a registered triangle, masked_fill with -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("bias", torch.tril(torch.ones(24, 24)).view(1, 1, 24, 24))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(WIDTH, dim=2)
        q, k, v = (part.view(b, t, HEADS, c // HEADS).transpose(1, 2) for part in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        att = self.drop(F.softmax(att, dim=-1))
        y = (att @ v).transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.drop(self.c_proj(y))
        h = self.c_fc(self.ln_2(x))
        h = 0.5 * h * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))))
        return x + self.drop(self.c_out(h))


class NanoGpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(24, WIDTH)
        self.blocks = nn.ModuleList(NanoBlock() for _ in range(2))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(0, idx.size(1), device=idx.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class RootMeanSquare(nn.Module):
    """Llama's norm as its first code had it."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
        return normed.type_as(x) * self.weight


def turned_by_complex(x: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[None, :, None, :]).flatten(3).type_as(x)


def turned_by_parts(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    real, imaginary = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    first, second = real * cos - imaginary * sin, real * sin + imaginary * cos
    return torch.stack([first, second], dim=-1).flatten(3).type_as(x)


class LlamaBlock(nn.Module):
    def __init__(self, is_complex: bool) -> None:
        super().__init__()
        self.is_complex = is_complex
        self.wq, self.wo = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.wk, self.wv = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))
        self.w1, self.w3 = (nn.Linear(WIDTH, 48, bias=False) for _ in range(2))
        self.w2 = nn.Linear(48, WIDTH, bias=False)
        self.attention_norm, self.ffn_norm = RootMeanSquare(), RootMeanSquare()

    def forward(self, x: Tensor, tables: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        b, s, _ = x.shape
        h = self.attention_norm(x)
        q = self.wq(h).view(b, s, HEADS, HEAD)
        k, v = (linear(h).view(b, s, HEADS // 2, HEAD) for linear in (self.wk, self.wv))
        turn = turned_by_complex if self.is_complex else turned_by_parts
        q, k = turn(q, *tables), turn(k, *tables)
        k, v = (t[:, :, :, None, :].expand(b, s, HEADS // 2, 2, HEAD).reshape(b, s, HEADS, HEAD) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(HEAD)
        scores = F.softmax((scores + mask).float(), dim=-1).type_as(q)
        x = x + self.wo(torch.matmul(scores, v).transpose(1, 2).contiguous().view(b, s, -1))
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Llama2C(nn.Module):
    """Llama with its frequencies as a buffer, complex or as cosines and sines."""

    def __init__(self, is_complex: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(LlamaBlock(is_complex) for _ in range(2))
        self.norm, self.output = RootMeanSquare(), nn.Linear(WIDTH, VOCABULARY, bias=False)
        angles = torch.outer(torch.arange(24).float(), 10000.0 ** -(torch.arange(0, HEAD, 2).float() / HEAD))
        self.is_complex = is_complex
        if is_complex:
            self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)
        else:
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        s = tokens.shape[1]
        x = self.embed(tokens)
        tables = (self.turns[:s],) if self.is_complex else (self.cos[:s], self.sin[:s])
        mask = torch.full((1, 1, s, s), float("-inf"))
        mask = torch.triu(mask, diagonal=1).type_as(x)
        for layer in self.layers:
            x = layer(x, tables, mask)
        return self.output(self.norm(x))


def llama_complex() -> nn.Module:
    return Llama2C(is_complex=True)


def llama_real() -> nn.Module:
    return Llama2C(is_complex=False)


class Modern(nn.Module):
    """Query and key normalised by head, rotation by halves with the tables made in the call, SwiGLU in one linear, gate
    second, scores that are capped, a window from arithmetic on positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 96, bias=False), nn.Linear(48, WIDTH, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        self.norm_1, self.norm_2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.register_buffer("frequencies", 10000.0 ** -(torch.arange(0, HEAD, 2).float() / HEAD), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        b, s = tokens.shape
        x = self.embed(tokens)
        q, k, v = self.qkv(self.norm_1(x)).view(b, s, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        place = torch.arange(s)
        angles = torch.einsum("i,j->ij", place.float(), self.frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)

        def turn(t: Tensor) -> Tensor:
            first, second = t.chunk(2, dim=-1)
            return t * cos + torch.cat((-second, first), dim=-1) * sin

        scores = torch.einsum("bhid,bhjd->bhij", turn(q), turn(k)) * HEAD**-0.5
        scores = 30.0 * torch.tanh(scores / 30.0)
        distance = place[:, None] - place[None, :]
        scores = scores.masked_fill((distance < 0) | (distance >= 4), torch.finfo(scores.dtype).min)
        y = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v)
        x = x + self.out(y.transpose(1, 2).reshape(b, s, WIDTH))
        value, gate = self.up(self.norm_2(x)).chunk(2, dim=-1)
        return x + self.down(value * F.silu(gate))


class Alibi(nn.Module):
    """Slopes by head on the distance between tokens, both as tensors in the call."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.register_buffer("slopes", torch.tensor([2.0 ** -(8 / HEADS * (i + 1)) for i in range(HEADS)]))

    def forward(self, tokens: Tensor) -> Tensor:
        b, s = tokens.shape
        x = self.embed(tokens)
        q, k, v = (linear(x).view(b, s, HEADS, HEAD).transpose(1, 2) for linear in (self.q, self.k, self.v))
        place = torch.arange(s)
        bias = -(place[:, None] - place[None, :]).abs().to(x.dtype) * self.slopes[:, None, None]
        keep = torch.ones(s, s, dtype=torch.bool).tril()
        bias = bias.masked_fill(~keep, float("-inf"))
        weights = torch.softmax(q @ k.mT / HEAD**0.5 + bias, dim=-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


class T5Buckets(nn.Module):
    """Relative positions in buckets that grow with the distance; scores are not scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.relative = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(8, HEADS)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        b, s = tokens.shape
        x = self.embed(tokens)
        h = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.scale
        q, k, v = (linear(h).view(b, s, HEADS, HEAD).transpose(1, 2) for linear in (self.q, self.k, self.v))
        place = torch.arange(s)
        distance = (place[:, None] - place[None, :]).clamp(min=0)
        far = 4 + (torch.log(distance.float().clamp(min=1) / 4) / math.log(16 / 4) * 4).long()
        bucket = torch.where(distance < 4, distance, far.clamp(max=7))
        bias = self.relative(bucket).permute(2, 0, 1)[None]
        keep = place[None, :] <= place[:, None]
        bias = bias + torch.where(keep, 0.0, torch.finfo(x.dtype).min).to(x.dtype)
        weights = torch.softmax((q @ k.transpose(2, 3) + bias).float(), dim=-1).to(x.dtype)
        return x + self.o((weights @ v).transpose(1, 2).reshape(b, s, WIDTH))


DECODERS = [
    Case(NanoGpt, ids, ("causal",) * 2, {"norm": 5, "activation": 2}, varies=("bs",)),
    Case(llama_complex, ids, ("causal",) * 2, {"norm": 5, "rope": 4, "glu": 2}, {"rope": 1}, ("bs",), False),
    Case(llama_real, ids, ("causal",) * 2, {"norm": 5, "rope": 4, "glu": 2}, varies=("bs",)),
    Case(Modern, ids, ("causal window=4 softcap",), {"norm": 4, "rope": 2, "glu": 1}, varies=("bs",)),
    Case(Alibi, ids, ("causal bias",), varies=("bs",)),
    Case(T5Buckets, ids, ("causal bias",), {"norm": 1}, varies=("bs",)),
]
