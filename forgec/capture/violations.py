"""What torch.export says of dynamic extents for which the model does not run alike, in forgec's words."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import Any

from forgec.capture.places import is_user_file, portable_path
from forgec.diagnostics import ForgeError, Location, error

AUTO = "torch.export.Dim.AUTO"
CHECKED = f"declare it {AUTO}: then each call is checked for what the model needs"

_GUARD = re.compile(r"in the specified range(.*) satisfy the generated guard (.*?)\.?$")
_SOLVED = re.compile(r"generated for (\w+) = .* resulted in a specialized value of (\d+)")


def violation(reason: Exception, place: Location | None) -> ForgeError | None:
    """The diagnostic for constraints that declared extents violate, None where torch's reason is another one."""
    text = str(reason)
    if "Constraints violated" in text or "Specializations unexpectedly required" in text:
        return _violated(text, place or _line(reason))
    solver = _environment(reason, "ShapeEnv.produce_guards")
    if solver is not None and isinstance(reason, AssertionError):
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
    names = sorted({n for listed in re.findall(r"\(([\w', .\[\]()]*?)\)!", body) for n in listed.split(", ")})
    what = " and ".join(repr(_readable(name, named)) for name in names) or "the dynamic extents"
    remedies = list(_remedies(body, fixes))
    message = f"the model does not run alike for all declared values of {what}"
    return error(
        "FORGE-C001", message, location=place, notes=tuple(notes)[:4], help="; or ".join([*remedies, CHECKED])
    )


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


def _environment(reason: BaseException | None, function: str) -> Any:
    """The object whose method, of a name that begins so, torch was in when it raised; None if it was in none."""
    seen: set[int] = set()
    while reason is not None and id(reason) not in seen:
        seen.add(id(reason))
        for frame, _ in traceback.walk_tb(reason.__traceback__):
            if frame.f_code.co_qualname.startswith(function):
                return frame.f_locals.get("self")
        reason = reason.__cause__ or reason.__context__
    return None


def _line(reason: Exception) -> Location | None:
    """The user's line that asked for more than what was declared: the first whose condition the ranges do not imply."""
    environment = _environment(reason, "ShapeEnv.produce_guards")
    for guard in getattr(environment, "guards", ()):
        try:
            known = environment.simplify(guard.expr)
        except Exception:  # torch's own doubts are its own
            continue
        if known.is_Boolean and not known.free_symbols:
            continue
        place = _asked(guard.sloc)
        if place is not None and type(known).__name__ != "Unequality":
            return place
    return None


def _asked(site: Any) -> Location | None:
    for name in ("framework_loc", "maybe_user_loc"):
        frame = getattr(site, name, None)
        file, line = getattr(frame, "filename", None), getattr(frame, "lineno", None)
        if file and line and is_user_file(file):
            return Location(portable_path(file), line, getattr(frame, "name", ""))
        found = re.match(r"(?P<file>[^\s:]+):(?P<line>\d+)(?: in (?P<function>\S+))?", frame if isinstance(frame, str) else "")
        if found is not None and is_user_file(found["file"]):
            return Location(portable_path(found["file"]), int(found["line"]), found["function"] or "")
    return None
