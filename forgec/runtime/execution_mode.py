"""The state of torch that a call needs, and the caller's restored after it."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class PlainMode:
    """No autograd, no inference mode (its tensors are of no use outside), no autocast, ``threads`` intra-op threads.

    All of these are per thread in torch. A class and not a generator: this is entered on every call.
    """

    __slots__ = ("_entered", "_records", "_restore_threads", "_threads")

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        import torch

        entered: list[Any] = []
        self._restore_threads: int | None = None
        self._entered = entered
        if torch.is_inference_mode_enabled():
            entered.append(torch.inference_mode(False))
        if torch._C._is_any_autocast_enabled():
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    entered.append(torch.autocast(device, enabled=False))
        self._records = False
        if entered:  # leaving inference mode switches autograd on
            entered.append(torch.no_grad())
        elif torch.is_grad_enabled():
            self._records = True
            torch._C._set_grad_enabled(False)  # what no_grad does, in a quarter of the time
        for mode in entered:
            mode.__enter__()
        if self._threads is not None:
            before = torch.get_num_threads()
            if before != self._threads:
                self._restore_threads = before
                torch.set_num_threads(self._threads)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._restore_threads is not None:
            import torch

            torch.set_num_threads(self._restore_threads)
        if self._records:
            import torch

            torch._C._set_grad_enabled(True)
        if self._entered:
            for mode in reversed(self._entered):
                mode.__exit__(kind, value, trace)
