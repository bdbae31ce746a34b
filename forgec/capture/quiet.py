"""Silence for what torch says to its own developers."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet() -> Iterator[None]:
    """Drop torch's warnings, log lines and dumps of graphs; what else is written to standard error comes after it.

    Where the ``with`` block raises, what was written is dropped: the error says what matters.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    held = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stderr(held):
            warnings.simplefilter("ignore")
            yield
        sys.stderr.write(held.getvalue())
    finally:
        logging.disable(disabled)
