"""The mutable state of a model: what one user's sequence of calls owns."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from forgec.runtime.forking import renew_after_fork
from forgec.runtime.refusals import NotCopied
from forgec.runtime.tensor_library import Tensor, TensorLibrary, usual_library

if TYPE_CHECKING:
    from forgec.runtime.program import Program


class Session(NotCopied):
    """States of a program, such as a KV cache. Sessions are independent of each other; calls of one session run one
    at a time.

    When a call fails after it began to write state, the state is undefined: further calls raise FORGE-R009 until
    ``reset``.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._states = program.initial_states()
        self._generation = object()  # another one when the states are other tensors
        self._adopted: dict[str, dict[str, Tensor]] = {}
        self._broken = False
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A call that another thread was in has left the state as it was in the middle of it."""
        self._broken = self._broken or self._lock.locked()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, entry: str | None = None, **kwargs: Any) -> Any:
        """Calls an entry point (the first one unless named) with this session's state. Raises like
        ``Program.__call__``."""
        return self._program.call(self, entry, args, kwargs)

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        return sum(state.nbytes for state in self._states.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all states by name: torch tensors, or arrays if the process has not imported torch."""
        library = usual_library()
        with self._lock, library.mode(None):
            return {name: library.clone(state) for name, state in self._states_in(library).items()}

    def _states_in(self, library: TensorLibrary) -> dict[str, Tensor]:
        """The states as tensors of a library, over the same memory."""
        if library is self._program.library:
            return self._states
        found = self._adopted.get(library.name)
        if found is None:
            found = {name: library.adopt(state) for name, state in self._states.items()}
            self._adopted[library.name] = found
        return found

    def reset(self) -> None:
        """Gives every state its initial value."""
        with self._lock:
            self._states, self._adopted = {}, {}  # first, so that old and new never exist together
            self._states = self._program.initial_states()
            self._generation = object()
            self._broken = False
