"""JSON without its traps: no duplicate keys, no NaN or infinity, no bytes that are not UTF-8, no exhaustion of the
stack."""

from __future__ import annotations

import json
from typing import Any


class StrictJsonError(ValueError):
    """The bytes are not JSON of this kind."""


def parse_json(content: bytes) -> Any:
    """The value. ``StrictJsonError`` for anything else."""
    try:
        return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as reason:
        raise StrictJsonError(str(reason)) from None


def print_json(value: Any) -> bytes:
    """Compact and ASCII: the same bytes for equal values. ``ValueError`` for NaN and infinity."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise StrictJsonError("a key occurs twice in one object")
    return result


def _refuse(name: str) -> Any:
    raise StrictJsonError(f"{name} is not a number of JSON")
