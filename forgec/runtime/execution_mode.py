"""The state of torch that a call needs, and the caller's restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def plain_mode(threads: int | None) -> Iterator[None]:
    """No autograd, no inference mode (its tensors could not be used outside), no autocast, ``threads`` intra-op
    threads.

    All of these are per thread in torch.
    """
    import torch

    before = torch.get_num_threads()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.is_autocast_enabled("cuda"):
            stack.enter_context(torch.autocast("cuda", enabled=False))
        stack.enter_context(torch.no_grad())
        if threads is not None and threads != before:
            torch.set_num_threads(threads)
            stack.callback(torch.set_num_threads, before)
        yield
