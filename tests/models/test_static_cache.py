"""A decoder with a KV cache, exported as a one-token step: the cache is state of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import forgec
from forgec.runtime.plan import Reg, State, View
from tests.models.zoo import CASES, build

CACHE_TOKENS = 96


class Step(torch.nn.Module):
    """One token in, logits out; the cache in between is a plain attribute, or registered as buffers."""

    def __init__(self, model: Any, registered: bool) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = model.config
        self.model = model
        self.cache = transformers.StaticCache(config=config, max_cache_len=CACHE_TOKENS)
        head_dim = config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(1, config.num_key_value_heads, head_dim, torch.float32, torch.device("cpu"))
        if registered:
            for number, layer in enumerate(self.cache.layers):
                self.register_buffer(f"key_{number}", layer.keys, persistent=False)
                self.register_buffer(f"value_{number}", layer.values, persistent=False)
                self.register_buffer(f"length_{number}", layer.cumulative_length, persistent=False)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return self.model(token, past_key_values=self.cache, use_cache=True).logits


def step(registered: bool) -> Step:
    case = next(case for case in CASES if case.name == "llama")
    return Step(build(case), registered).eval()


def greedy(call: Callable[[torch.Tensor], torch.Tensor], start: int, tokens: int = 64) -> list[int]:
    """Token numbers, each the likeliest after the ones before."""
    token, produced = torch.tensor([[start]]), []
    for _ in range(tokens):
        token = call(token)[:, -1:].argmax(-1)
        produced.append(int(token))
    return produced


@pytest.mark.parametrize("registered", [False, True])
def test_greedy_tokens_equal_eager(registered: bool) -> None:
    compiled = forgec.compile(step(registered), (torch.tensor([[1]]),))
    with torch.no_grad():
        expected = greedy(step(registered), 5)
    assert len(set(expected)) > 5
    assert greedy(compiled.session(), 5) == expected


def test_compiling_leaves_the_model_as_it_was() -> None:
    model = step(registered=False)
    forgec.compile(model, (torch.tensor([[1]]),))
    for layer in model.cache.layers:
        assert int(layer.cumulative_length) == 0
        assert not layer.keys.any()


def test_sessions_are_independent_and_reset() -> None:
    compiled = forgec.compile(step(registered=False), (torch.tensor([[1]]),))
    first, second = compiled.session(), compiled.session()
    with torch.no_grad():
        expected = [greedy(step(registered=False), start, 20) for start in (5, 9)]
    token = [torch.tensor([[5]]), torch.tensor([[9]])]
    produced: list[list[int]] = [[], []]
    for _ in range(20):  # in turn
        for number, session in enumerate((first, second)):
            token[number] = session(token[number])[:, -1:].argmax(-1)
            produced[number].append(int(token[number]))
    assert produced == expected
    first.reset()
    assert greedy(first, 9, 20) == expected[1]


def test_no_launch_copies_the_cache() -> None:
    compiled = forgec.compile(step(registered=False), (torch.tensor([[1]]),))
    (entry,) = compiled._program.plan.entries
    caches = {n for n, r in enumerate(entry.registers) if isinstance(r, State) and r.spec.nbytes > 1000}
    assert len(caches) == 4
    (size,) = {int(entry.registers[n].spec.nbytes) for n in caches}
    updates = 0
    for launch in entry.launches:
        for number in launch.writes:
            register = entry.registers[number]
            root = register.base if isinstance(register, View) else number
            if root in caches:
                assert launch.op == "aten::index_copy_"
                (at,) = (a.id for a in launch.args[3:4] if isinstance(a, Reg))
                assert int(entry.registers[at].spec.nbytes) < size / 10  # one token
                updates += 1
            else:
                assert int(register.spec.nbytes) < size
    assert updates == 4
    assert entry.arena_bytes is not None
    assert entry.arena_bytes < size
