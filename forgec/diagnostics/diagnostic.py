"""One diagnostic, and the exception that carries diagnostics to the user."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from forgec.diagnostics.catalog import CATALOG

Severity = Literal["error", "warning", "remark"]


@dataclass(frozen=True)
class Location:
    """A place in the user's model: ``file:line in function (module)``.

    ``file`` is relative to an import root or to the working directory, ``line`` is 1-based (0: unknown),
    ``function`` is the qualified name (``Attention.forward``), ``module`` the dotted path of the submodule
    (``layers.3.attn``).
    """

    file: str
    line: int = 0
    function: str = ""
    module: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}" if self.line else self.file
        if self.function:
            text += f" in {self.function}"
        if self.module:
            text += f" ({self.module})"
        return text


@dataclass(frozen=True)
class Diagnostic:
    """A fact: what is wrong (lower-case start, no final full stop), where, and what the user can do about it."""

    code: str
    message: str
    location: Location | None = None
    notes: tuple[str, ...] = ()
    help: str | None = None
    severity: Severity = "error"

    def __post_init__(self) -> None:
        if self.code not in CATALOG:
            raise ValueError(f"{self.code} is not in the catalog of diagnostics")

    def __str__(self) -> str:
        from forgec.diagnostics.render import render

        return render(self)

    def to_dict(self) -> dict[str, Any]:
        """The diagnostic as JSON-compatible data (``--json``)."""
        result: dict[str, Any] = {"code": self.code, "severity": self.severity, "message": self.message}
        if self.location is not None:
            result["location"] = asdict(self.location)
        if self.notes:
            result["notes"] = list(self.notes)
        if self.help:
            result["help"] = self.help
        return result


@dataclass
class ForgeError(Exception):
    """Every error that forgec raises on purpose.

    ``diagnostics`` holds at least one entry; ``code`` is the first one's.
    """

    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def code(self) -> str:
        return self.diagnostics[0].code

    def at(self, location: Location | None) -> ForgeError:
        """The same error; diagnostics without a place get this one."""
        placed = [d if d.location is not None else replace(d, location=location) for d in self.diagnostics]
        return type(self)(placed)

    def __str__(self) -> str:
        from forgec.diagnostics.render import render

        return "\n\n".join(render(d) for d in self.diagnostics)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.diagnostics,))


class OutOfRangeError(ForgeError, IndexError):
    """An index that a kernel was given is outside of what it indexes: what Python and torch have ``IndexError`` for."""


ZERO_DIVISOR = "ZeroDivisionError"
"""What a kernel's check says of an integer that is divided by 0, as torch does."""


class DivisionByZeroError(ForgeError, RuntimeError):
    """An integer was divided by 0 in a kernel: what torch has ``RuntimeError`` for."""


def error(
    code: str, message: str, *, location: Location | None = None, notes: tuple[str, ...] = (), help: str | None = None
) -> ForgeError:
    """A ``ForgeError`` with one diagnostic, to be raised by the caller."""
    return ForgeError([Diagnostic(code, message, location, tuple(notes), help)])


class ForgecWarning(UserWarning):
    """What forgec warns of; ``diagnostics`` holds the same as data."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        from forgec.diagnostics.render import render

        super().__init__("\n\n".join(render(d) for d in diagnostics))
        self.diagnostics = list(diagnostics)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ForgecWarning, (self.diagnostics,))


def warn(diagnostics: Sequence[Diagnostic]) -> None:
    """Issue one warning of all these at the line that called forgec; none if there are none."""
    if not diagnostics:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN_FILES):
        level, frame = level + 1, frame.f_back
    warnings.warn(ForgecWarning(diagnostics), stacklevel=level)


_OWN_FILES = str(Path(__file__).parent.parent) + os.sep
