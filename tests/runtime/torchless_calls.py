"""Runs artifacts where there is nothing but numpy, ml_dtypes and forgec: ``python -S -I torchless_calls.py FOLDER
CASE``.

FOLDER holds these packages as ``packages``, the artifacts, and for each case the arguments as ``CASE.npz``. Prints, as
JSON, what was imported and what the case returns.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1] if __name__ == "__main__" else ".")
if __name__ == "__main__":
    sys.path[:] = [str(FOLDER / "packages"), *sys.path]


def described(value: Any) -> Any:
    """Results as JSON: arrays with all their bits."""
    import numpy

    if isinstance(value, numpy.ndarray):
        return [str(value.dtype), list(value.shape), value.tobytes().hex()]
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, dict):
        return {name: described(item) for name, item in value.items()}
    return value


def given(case: str) -> list[Any]:
    """The arguments of the case, in order; bfloat16 is stored as its bits, under a name that ends so."""
    import ml_dtypes
    import numpy

    arrays = numpy.load(FOLDER / f"{case}.npz")
    return [arrays[name].view(ml_dtypes.bfloat16) if "bf16" in name else arrays[name] for name in arrays]


def call(case: str) -> Any:
    """One call."""
    from forgec.runtime import load

    return load(FOLDER / f"{case}.forge", threads=2)(*given(case))


def batches(case: str) -> Any:
    """Several extents, up and down: the arena grows, and is kept."""
    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge", threads=2)
    (x,) = given(case)
    return [model(x[:count]) for count in (3, 40, 5, 40, 64, 3)]


def sessions(case: str) -> Any:
    """Two sessions in turn, one of which starts again."""
    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge")
    (x,) = given(case)
    first, second = model.session(), model.session()
    results = [first(x), second(2 * x), first(x)]
    states = first.state_dict()
    first.reset()
    return [results, first(x), states, second.state_dict(), first.nbytes]


def shared(case: str) -> Any:
    """Results that are views: of an argument, which the result shows changing, and of another result."""
    import numpy

    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge")
    (x,) = given(case)
    part, product, turned = model(x)
    results = described([part, product, turned])
    x[:] = 7
    product[:] = 5
    return [
        results,
        bool((part == 7).all()),
        bool((turned == 5).all()),
        numpy.shares_memory(part, x),
        numpy.shares_memory(product, turned),
        [part.strides, turned.strides],
    ]


def written(case: str) -> Any:
    """An argument that the call writes: as it lies, in another layout, and in ways that cannot be."""
    import numpy

    from forgec.diagnostics import ForgeError
    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge")
    (x,) = given(case)
    plain, other = x.copy(), numpy.asfortranarray(x)
    results = [model(plain), plain, model(other), numpy.ascontiguousarray(other)]
    locked = x.copy()
    locked.flags.writeable = False
    codes = []
    for bad in (locked, numpy.broadcast_to(x[:1], x.shape).view()):
        try:
            model(bad)
        except ForgeError as reason:
            codes.append(str(reason).splitlines()[0])
    return [results, codes]


def together(case: str) -> Any:
    """Calls of many threads at one time."""
    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge", threads=2)
    (x,) = given(case)
    counts = [3, 17, 40, 64] * 3
    found: list[Any] = [None] * len(counts)

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = model(x[: counts[index]])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def refused(case: str) -> Any:
    """What wrong calls say."""
    import numpy

    from forgec.diagnostics import ForgeError
    from forgec.runtime import load

    model = load(FOLDER / f"{case}.forge")
    (x,) = given(case)
    calls: list[tuple[Any, ...]] = [
        (),
        (x, x),
        ([1.0, 2.0],),
        (x.astype("f8"),),
        (x.astype(">f4"),),
        (x[0],),
        (x[:, :-1],),
        (numpy.zeros((1000, x.shape[1]), "f4"),),
        (object(),),
    ]
    texts = []
    for args in calls:
        try:
            model(*args)
        except ForgeError as reason:
            texts.append(str(reason))
    odd = numpy.zeros((6, 2 * x.shape[1]), "f4")
    odd[:, ::2] = x[:6]
    laid_otherwise = [odd[:, ::2], x[5::-1][::-1], x[:6].T.copy().T]
    packed = numpy.zeros(6, [("a", "u1"), ("x", "f4", x.shape[1])])  # strides that are no multiple of an element
    packed["x"] = x[:6]
    return [texts, [model(value) for value in (*laid_otherwise, packed["x"], x[5::-1])]]


def fails(case: str) -> Any:
    """The message of the error that loading or calling raises."""
    from forgec.diagnostics import ForgeError

    try:
        return call(case)
    except ForgeError as reason:
        return str(reason)


def cpu_seconds(case: str) -> Any:
    """CPU time of importing the runtime, of the names that loading needs, and of loading, numpy apart."""
    start = time.process_time()
    import forgec.runtime

    imported = time.process_time()
    forgec.runtime.load  # noqa: B018 - resolved on first use
    resolved = time.process_time()
    import numpy  # noqa: F401

    begin = time.process_time()
    forgec.runtime.load(FOLDER / f"{case}.forge")
    return [imported - start, resolved - imported, time.process_time() - begin]


def main() -> None:
    """Runs ``FUNCTION:CASE`` for each argument."""
    results = {}
    for name in sys.argv[2:]:
        function, _, case = name.partition(":")
        results[name] = globals()[function](case)
    packages = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"packages": packages, "results": described(results)}))


if __name__ == "__main__":
    main()
