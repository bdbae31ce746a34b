"""Source locations: ``forgec.diagnostics.Location`` as MLIR location attributes, and their care under rewriting.

A place in the user's model is written ``loc("layers.3.attn"("Attention.forward"("model.py":42:0)))``; an op that stands
for several ops (after fusion) carries a fused location of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

from xdsl.dialects.builtin import (
    ArrayAttr,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    IntAttr,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
)
from xdsl.ir import Attribute, Operation

from forgec.diagnostics import Location

UNKNOWN = UnknownLoc()


@lru_cache(maxsize=65536)
def to_attribute(place: Location) -> LocationAttr:
    """The location attribute of a place; the unknown location where neither file nor line is known."""
    if not place.line and place.file == "<unknown>":
        return UNKNOWN
    file = FileLineColLoc(_encoded(place.file), IntAttr(place.line), IntAttr(0))
    return NameLoc(_encoded(place.module), NameLoc(_encoded(place.function), file))


@lru_cache(maxsize=65536)
def from_attribute(attribute: Attribute) -> tuple[Location, ...]:
    """The places that a location attribute names (several after fusion, none if unknown)."""
    if isinstance(attribute, FileLineColLoc):
        return (Location(_decoded(attribute.filename), attribute.line.data),)
    if isinstance(attribute, NameLoc):
        inner = attribute.location
        if isinstance(inner, NameLoc) and isinstance(inner.location, FileLineColLoc):
            file = inner.location
            names = (_decoded(inner.desc), _decoded(attribute.desc))
            return (Location(_decoded(file.filename), file.line.data, *names),)
        places = () if isinstance(inner, NoneAttr) else from_attribute(inner)
        return tuple(Location(p.file, p.line, p.function, p.module or _decoded(attribute.desc)) for p in places)
    if isinstance(attribute, FusedLoc):
        return tuple(dict.fromkeys(p for part in _parts(attribute) for p in from_attribute(part)))
    if isinstance(attribute, CallSiteLoc):
        return from_attribute(attribute.callee)
    return ()


def location_of(op: Operation) -> Location | None:
    """The first place that the op's location names, or None."""
    places = from_attribute(op.location)
    return places[0] if places else None


def is_known(op: Operation) -> bool:
    """True if the op says where it came from."""
    return not isinstance(op.location, UnknownLoc)


def fuse(attributes: Iterable[LocationAttr]) -> LocationAttr:
    """One location for several: without duplicates and unknowns, flattened."""
    parts: dict[LocationAttr, None] = {}
    for attribute in attributes:
        if isinstance(attribute, FusedLoc):
            parts.update(dict.fromkeys(_parts(attribute)))
        elif not isinstance(attribute, UnknownLoc):
            parts[attribute] = None
    if not parts:
        return UNKNOWN
    if len(parts) == 1:
        return next(iter(parts))
    return FusedLoc(tuple(parts), NoneAttr())


@lru_cache(maxsize=65536)
def renamed(attribute: LocationAttr, old: str, new: str) -> LocationAttr:
    """The location with the module ``old``, and the modules in it, called ``new``."""
    if isinstance(attribute, FusedLoc):
        return fuse(renamed(part, old, new) for part in _parts(attribute))
    if not isinstance(attribute, NameLoc) or not isinstance(attribute.location, NameLoc):
        return attribute
    module = _decoded(attribute.desc)
    if not old or not (module == old or module.startswith(f"{old}.")):
        return attribute
    return NameLoc(_encoded(new + module.removeprefix(old)), attribute.location)


def inherit(op: Operation, *sources: Operation) -> Operation:
    """Give ``op`` the (fused) location of the ops that it replaces, unless it has one; returns ``op``."""
    if not is_known(op):
        op.location = fuse(source.location for source in sources)
    return op


def _parts(fused: FusedLoc) -> tuple[LocationAttr, ...]:
    assert isinstance(fused.locations, ArrayAttr)
    return fused.locations.data


_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _encoded(text: str) -> StringAttr:
    """The text with what is not printable ASCII percent-encoded: xDSL cannot read back other strings in locations."""
    return StringAttr(quote(text, safe=_PRINTABLE))


def _decoded(attribute: StringAttr) -> str:
    return unquote(attribute.data)
