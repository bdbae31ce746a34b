"""What a forked process has to renew: a lock that another thread of its parent held would stay locked for ever."""

from __future__ import annotations

import gc
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with locks."""

    def after_fork(self) -> None:
        """Called in the child, which has one thread."""
        ...


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()


def renew_after_fork(owner: Forkable) -> None:
    """Calls the owner's ``after_fork`` in every process forked from now on."""
    _known.add(owner)


def _in_child() -> None:
    for owner in list(_known):
        owner.after_fork()
    if _pauses:
        _pauses.clear()
        gc.enable()


_pauses: list[None] = []
"""One entry for each thread that keeps the garbage collector off and will turn it on again; not so in a child."""


def note_pause() -> None:
    """The collector is about to be switched off for a while."""
    _pauses.append(None)


def note_end_of_pause() -> None:
    """The pause is over."""
    if _pauses:
        _pauses.pop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
