"""Values of ``--input``: ``name=@file.npy``, or the shape, dtype and content as iree-run-module takes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forgec.diagnostics import ForgeError, error
from forgec.runtime.dtypes import ELEMENT_TYPES, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

_TYPE = re.compile(r"(?P<shape>(?:\d+x)*)(?P<dtype>[a-z][a-z0-9]*)")

_FORMS = "accepted: name=@file.npy, name=1x8xi64=@file.npy, name=1x8xi64=0 (one value for all), name=3xf32=1,2.5,-1"


def parse_input(text: str) -> tuple[str, np.ndarray[Any, Any]]:
    """The name and the array that one ``--input`` stands for.

    Raises FORGE-U005, FORGE-U001 for a missing file, FORGE-R010 for an array that memory has no room for.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise _bad(text, "it has no name or no value")
    if value.startswith("@"):
        return name, _load(text, value[1:])
    type_text, equals, content = value.partition("=")
    match = _TYPE.fullmatch(type_text)
    if match is None or match["dtype"] not in ELEMENT_TYPES or not content:
        raise _bad(text, f"{type_text!r} is no type" if content else "it has a type, but no value")
    shape = tuple(int(extent) for extent in match["shape"].split("x")[:-1])
    dtype = numpy_dtype(match["dtype"])
    if content.startswith("@"):
        array = _load(text, content[1:])
        if array.shape != shape or array.dtype != dtype:
            raise _bad(text, f"the file holds {array.dtype}{list(array.shape)}")
        return name, array
    return name, _filled(text, shape, dtype, content.split(","))


def _filled(text: str, shape: tuple[int, ...], dtype: Any, items: list[str]) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        values = np.array([_number(item.strip(), dtype) for item in items]).astype(dtype)
    except (ValueError, OverflowError):
        raise _bad(text, f"{','.join(items)!r} is no list of values of {dtype}") from None
    if len(items) == 1:
        try:
            return np.full(shape, values[0], dtype)
        except (MemoryError, ValueError) as reason:  # ValueError: more than memory has addresses
            raise error("FORGE-R010", f"cannot make --input {text}: {reason}") from reason
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise _bad(text, f"there are {values.size} values for {list(shape)}")
    return values.reshape(shape)


def _number(item: str, dtype: Any) -> bool | int | float | complex:
    if dtype.kind == "b":
        if item.lower() not in ("0", "1", "false", "true"):
            raise ValueError(item)
        return item.lower() in ("1", "true")
    if dtype.kind in "iu":
        import numpy as np

        limits = np.iinfo(dtype)
        if not limits.min <= int(item, 0) <= limits.max:
            raise OverflowError(item)
        return int(item, 0)
    return complex(item) if dtype.kind == "c" else float(item)


def _load(text: str, path: str) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except OSError as exc:
        raise error("FORGE-U001", f"cannot read {path}: {(exc.strerror or str(exc)).lower()}") from exc
    except (ValueError, EOFError) as exc:
        raise _bad(text, f"{path} is not a .npy file") from exc
    if not isinstance(array, np.ndarray):
        array.close()
        raise _bad(text, f"{path} holds several arrays")
    return array


def _bad(text: str, reason: str) -> ForgeError:
    return error("FORGE-U005", f"cannot use --input {text}: {reason}", help=_FORMS)
