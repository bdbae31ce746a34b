"""What torch.export says of dynamic extents for which the model does not run alike, in forgec's words."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import FrameSummary
from types import FrameType
from typing import Any

from torch._guards import SLoc
from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

from forgec.capture.places import calling_place
from forgec.diagnostics import ForgeError, Location, error

AUTO = "torch.export.Dim.AUTO"
CHECKED = f"declare it {AUTO}: then each call is checked for what the model needs"

_GUARD = re.compile(r"in the specified range(.*) satisfy the generated guard (.*?)\.?$")
_VIOLATED = re.compile(r"(?:Constraints violated|Specializations unexpectedly required) \((.*?)\)!")
_SOLVED = re.compile(r"generated for (\w+) = .* resulted in a specialized value of (\d+)")


def violation(reason: Exception, place: Location | None) -> ForgeError | None:
    """The diagnostic for constraints that declared extents violate, None where torch's reason is another one."""
    text = str(reason)
    if "Constraints violated" in text or "Specializations unexpectedly required" in text:
        return _violated(text, place or _line(reason))
    solving = any(frame.f_code.co_qualname.startswith("DimConstraints.") for frame in _frames(reason))
    if solving and isinstance(reason, AssertionError):
        said = (text.strip().splitlines() or [type(reason).__name__])[0]
        message = "torch.export cannot work out for which values of the dynamic extents the model runs"
        return error("FORGE-C001", message, location=place or _line(reason), notes=(said,), help=CHECKED)
    return None


def _violated(text: str, place: Location | None) -> ForgeError:
    body, _, fixes = text.partition("\n\nThe error above")[0].partition("Suggested fixes:")
    named = {source: name for name, source in re.findall(r"(\w+) = (L\[\S+?\]\.size\(\)\[\d+\])", body)}
    notes: dict[str, None] = {}
    for line in body.splitlines():
        line = _readable(line.strip(" -"), named)
        found = _GUARD.search(line)
        if found is not None:
            notes[f"not true of all values: {found[2]}"] = None
        elif not line.startswith(("Constraints violated", "Specializations unex")) and line:
            notes[line.rstrip(".")] = None
    names = sorted({n for listed in _VIOLATED.findall(body) for n in listed.split(", ")})
    what = " and ".join(repr(_readable(name, named)) for name in names) or "the dynamic extents"
    remedies = list(_remedies(body, fixes))
    message = f"the model does not run alike for all declared values of {what}"
    return error("FORGE-C001", message, location=place, notes=tuple(notes)[:4], help="; or ".join([*remedies, CHECKED]))


def _readable(text: str, named: dict[str, str]) -> str:
    """A text of torch's with the names of dimensions for what it computes them from."""
    for source, name in named.items():
        text = text.replace(f"{name} = {source}", name).replace(source, name)
    text = re.sub(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]", r"\1.\2", text)
    text = re.sub(r"\b(\w+) <= \1 and \1 <= IntInfinity\(\)", r"\1", text)
    text = re.sub(r" and [\w.]+ <= IntInfinity\(\)", "", text)
    return text.replace("(-1)*", "-")


def _remedies(body: str, fixes: str) -> Iterator[str]:
    """Torch's suggestions, one for each extent."""
    for line in fixes.splitlines():
        name, equals, said = (part.strip() for part in line.partition("="))
        if not equals:
            continue
        if said.startswith("Dim("):
            if "oo" not in said and not name.startswith("_"):
                yield f"declare forgec.{said.replace(chr(39), chr(34))}"
        elif said.isdigit():
            yield f"leave {name!r} fixed: the model needs {said}"
        elif re.fullmatch(r"\w+", said):
            yield f"give both extents the same Dim ({said!r} for {name!r})"
        elif not name.startswith("_"):
            derived = re.sub(r"_[a-z]\w*", lambda root: f'forgec.Dim("{root[0]}")', said)
            yield f"declare {derived} for {name!r}"
    if not fixes:
        for name, value in _SOLVED.findall(body):
            yield f"leave {name!r} fixed: with the example inputs the model needs {value}"


def _frames(reason: BaseException | None) -> Iterator[FrameType]:
    """The frames in which an exception was raised, and those that it was raised for."""
    seen: set[int] = set()
    while reason is not None and id(reason) not in seen:
        seen.add(id(reason))
        yield from (frame for frame, _ in traceback.walk_tb(reason.__traceback__))
        reason = reason.__cause__ or reason.__context__


def _environment(reason: Exception) -> ShapeEnv | None:
    """What torch knew of extents when it compared them with what is declared."""
    for frame in _frames(reason):
        if frame.f_code.co_name in ("produce_guards", "produce_guards_and_solve_constraints"):
            known = frame.f_locals
            for value in (known.get("self"), known.get("shape_env"), getattr(known.get("fake_mode"), "shape_env", 0)):
                if isinstance(value, ShapeEnv):
                    return value
    return None


def _line(reason: Exception) -> Location | None:
    """The user's line that asked for more than what was declared: the first whose condition the ranges do not imply,
    else the first that made an extent a number."""
    environment = _environment(reason)
    fixing: Location | None = None
    for guard in environment.guards if environment is not None else ():
        place = getattr(guard.sloc, "place", None)
        if environment is None or place is None or type(guard.expr).__name__ == "Unequality":
            continue
        if environment.simplify(guard.expr).free_symbols:
            return place
        if type(guard.expr).__name__ == "Equality":
            fixing = fixing or place
    return fixing


@dataclass(frozen=True)
class _Asked(SLoc):
    """Torch's note of where it asked, with the user's line."""

    place: Location | None = None


def _asking() -> FrameSummary | None:
    """The frame that torch takes for the one that asks, above that of the caller."""
    frame: FrameType | None = sys._getframe(2)
    uninteresting = uninteresting_files()
    while frame is not None and frame.f_code.co_filename in uninteresting:
        frame = frame.f_back
    return frame and FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


@contextmanager
def recorded_lines() -> Iterator[None]:
    """Inside the ``with`` block torch notes the user's line wherever it asks about extents."""
    original = ShapeEnv._get_sloc

    def noting(self: ShapeEnv, framework_loc: str | None = None) -> SLoc:
        found = original(self, framework_loc)
        asking: Any = _asking() if framework_loc is None else framework_loc  # not this function
        return _Asked(asking, found.maybe_user_loc, calling_place("export.py"))

    ShapeEnv._get_sloc = noting
    try:
        yield
    finally:
        ShapeEnv._get_sloc = original
