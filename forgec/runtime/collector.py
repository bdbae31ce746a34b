"""Keeps Python's cyclic garbage collector out of short phases that allocate many long-lived objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from forgec.runtime.forking import note_end_of_pause, note_pause


@contextmanager
def paused_collector() -> Iterator[None]:
    """No collection inside. One of the oldest generation walks all of torch's objects, 0.1 to 0.2 s, and frees
    nothing here.

    Threads may overlap: at worst the collector runs again a little early, it is never left off.
    """
    was_enabled = gc.isenabled()
    if was_enabled:
        note_pause()
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            note_end_of_pause()
