"""Compilation at the first call: what the decorator returns."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any

from forgec.diagnostics import error
from forgec.runtime import tree
from forgec.runtime.forking import renew_after_fork
from forgec.runtime.refusals import NotCopied


class LazyModel(NotCopied):
    """Compiles for each new signature of inputs; raises ForgeError (C006) for more than ``max_signatures`` of them.

    A signature is the structure of the arguments, each tensor's dtype, shape, strides and device, and each other value.
    """

    def __init__(
        self, model: Any, compile_for: Callable[[tuple[Any, ...], dict[str, Any]], Any], max_signatures: int
    ) -> None:
        functools.update_wrapper(self, model)
        self._compile = compile_for
        self._max_signatures = max_signatures
        self._compiled: dict[Hashable, Any] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A compilation that another thread was in does not go on."""
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = signature_of(args, kwargs)
        found = self._compiled.get(key)
        if found is None:
            with self._lock:
                found = self._compiled.get(key)
                if found is None:
                    found = self._compile_new(key, args, kwargs)
        return found(*args, **kwargs)

    def _compile_new(self, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(self._compiled) >= self._max_signatures:
            name = getattr(self, "__name__", type(getattr(self, "__wrapped__", self)).__name__)
            raise error(
                "FORGE-C006",
                f"{name} was called with more than {self._max_signatures} signatures of inputs",
                help="raise max_signatures, or declare dynamic_shapes",
            )
        self._compiled[key] = self._compile(args, kwargs)
        return self._compiled[key]

    def __repr__(self) -> str:
        name = getattr(self, "__qualname__", type(getattr(self, "__wrapped__", self)).__name__)
        return f"LazyModel({name}, signatures={self.signatures} of at most {self._max_signatures})"

    @property
    def signatures(self) -> int:
        """How many signatures have been compiled."""
        return len(self._compiled)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: the instance is the first argument's owner, which a compiled function cannot capture."""
        if instance is None:
            return self
        raise error(
            "FORGE-C002",
            "a method cannot be compiled by itself",
            help="compile the module: forgec.compile(module, example_inputs=…)",
        )


def signature_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """A hashable description of a call's arguments."""
    leaves, structure = tree.flatten((args, dict(sorted(kwargs.items()))))
    return structure, tuple(_leaf(leaf) for leaf in leaves)


def _leaf(value: Any) -> Hashable:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        strides = value.stride() if callable(getattr(value, "stride", None)) else getattr(value, "strides", None)
        return (str(value.dtype), tuple(value.shape), strides, str(getattr(value, "device", "cpu")))
    return (type(value), repr(value))
