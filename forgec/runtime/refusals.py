"""Uses of a model that cannot be, refused with the reason before they fail somewhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

from forgec.diagnostics import error


class NotCopied:
    """Refuses ``pickle`` and ``copy``: a program in memory holds mapped weights, locks and functions of torch."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: save the compiled model, and forgec.load the "
            "artifact again where it is needed"
        )


def refuse_traced(leaves: Sequence[Any]) -> None:
    """FORGE-R008 for a call inside of a trace, or with tensors of one: programs need memory, and know no transforms."""
    import torch

    native: Any = torch._C
    mode = native._get_dispatch_mode(native._TorchDispatchModeKey.FAKE)
    if mode is not None or any(map(_is_fake, map(type, leaves))):
        raise error(
            "FORGE-R008",
            "a compiled program was called with fake tensors, or while something traces (torch.export, forgec.compile)",
            help="trace the model that it was compiled from as part of the whole",
        )
    functorch = native._functorch
    if functorch.peek_interpreter_stack() is not None and any(
        isinstance(leaf, torch.Tensor) and functorch.is_functorch_wrapped_tensor(leaf) for leaf in leaves
    ):
        raise error(
            "FORGE-R008",
            "a compiled program was called with tensors that torch.func transforms (grad, vmap, jvp)",
            help="transform the model, and compile what comes of it; for vmap, compile it for a batch",
        )


@lru_cache(maxsize=256)
def _is_fake(cls: type) -> bool:
    return cls.__module__.startswith("torch._subclasses.") and cls.__name__ in ("FakeTensor", "FunctionalTensor")


def refuse_path(path: Any, what: str) -> None:
    """FORGE-U005 for what is no path."""
    if not isinstance(path, (str, os.PathLike)):
        raise error("FORGE-U005", f"{what} is of type {type(path).__name__}, a path is needed")
