"""Graphs, machines and schedules as JSON (machines as TOML too), checked by pydantic against their dataclasses."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from forgec.diagnostics import error

T = TypeVar("T")


@cache
def adapter(kind: type) -> TypeAdapter[Any]:
    """What reads and writes a dataclass; fields that it does not have are refused."""
    return TypeAdapter(kind)


def from_values(kind: type[T], values: Any, origin: str, what: str = "") -> T:
    """A dataclass from JSON values; ``what``: what it is called where it is none.

    Raises:
        ForgeError: FORGE-U010, which names the place of each fault in ``origin``.
    """
    try:
        return adapter(kind).validate_python(values)
    except ValidationError as caught:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
            for fault in caught.errors()
        ]
        raise error("FORGE-U010", f"{origin} is no {what or kind.__name__.lower()}", notes=tuple(faults)) from None


def to_values(item: Any) -> Any:
    """A dataclass as JSON values, without what is left at its default."""
    return adapter(type(item)).dump_python(item, mode="json", exclude_defaults=True)


def text_of(path: Path) -> str:
    """The text of a file. Raises FORGE-U001 where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as caught:
        raise error("FORGE-U001", f"cannot read {path}: {(caught.strerror or str(caught)).lower()}") from None
    except UnicodeDecodeError as caught:
        raise error("FORGE-U001", f"cannot read {path}: it is not UTF-8 text ({caught.reason})") from None


def read(kind: type[T], path: Path) -> T:
    """A dataclass from a file: TOML where its name ends so, else JSON.

    Raises:
        ForgeError: FORGE-U001 where it cannot be read, FORGE-U010 where it does not hold one.
    """
    text = text_of(path)
    try:
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as caught:
        raise error("FORGE-U010", f"{path} is not {path.suffix[1:].upper() or 'JSON'}: {caught}") from None
    return from_values(kind, values, str(path))


def write(item: Any, path: Path) -> None:
    """Write a dataclass as JSON."""
    path.write_text(json.dumps(to_values(item), indent=1) + "\n", encoding="utf-8")
