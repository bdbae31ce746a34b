"""Where the memory of a call is: ``python -S -I resident_calls.py FOLDER NAME``, with numpy alone.

Prints, as JSON, what the program foretells, what it allocated, and what the system says of the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def anonymous_bytes() -> int:
    """Memory of the process's own that it has written."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell")


def mapped_bytes(path: Path) -> list[tuple[int, int]]:
    """For each mapping of a file, its size and how much of it is in memory."""
    found: list[tuple[int, int]] = []
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split()[0].count("-") == 1 and not line.split()[0].endswith(":"):
            inside = line.endswith(str(path.resolve()))
        elif inside and line.startswith(("Size:", "Rss:")):
            number = int(line.split()[1]) * 1024
            found.append((number, 0)) if line.startswith("Size:") else found.append((found.pop()[0], number))
    return found


def main(folder: Path, name: str) -> dict[str, Any]:
    """Two calls: the first one builds what is kept, the second one shows that no more comes."""
    import numpy

    from forgec.runtime import load

    path = folder / f"{name}.forge"
    stored = numpy.load(folder / f"{name}.npz")
    given = {key: stored[key] for key in stored}
    load(folder / "first.forge", threads=1)  # imports what loading and threads need, whose size is Python's affair
    begin = anonymous_bytes()
    model = load(path, threads=1)
    loaded = anonymous_bytes()
    first = model(**given)
    called = anonymous_bytes()
    second = model(**given)
    (lane,) = model.program._lanes
    peak = model.program.peak_bytes()
    return {
        "same": all(numpy.array_equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True)),
        "arena": sum(arena.nbytes for arena in lane.arenas.values()),
        "foretold_arena": peak.arena_bytes,
        "foretold": peak.total_bytes,
        "results": sum(leaf.nbytes for leaf in leaves(first)),
        "loading": loaded - begin,
        "calling": called - loaded,
        "second_call": anonymous_bytes() - called,
        "file": path.stat().st_size,
        "mapped": mapped_bytes(path),
    }


def leaves(value: Any) -> list[Any]:
    """The arrays in a result, in order."""
    if isinstance(value, dict):
        value = [*value.values()]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]


if __name__ == "__main__":
    sys.path[:] = [f"{sys.argv[1]}/packages", *sys.path]
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
