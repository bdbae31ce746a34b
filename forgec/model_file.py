"""Model files: Python that exposes a model, or a program that torch.export saved."""

from __future__ import annotations

import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from forgec.diagnostics import Location, error

Source = tuple[Any, Sequence[Any], Mapping[str, Any], Any]


def read(path: Path, entry: str | None) -> Source:
    """Model, example inputs, example keyword arguments and dynamic shapes of a file."""
    name = "model"
    if entry is not None:
        file, _, name = entry.rpartition(":")
        path = Path(file) if file else path
    if not path.is_file():
        raise error("FORGE-U001", f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if path.suffix == ".pt2":
        return _exported(path)
    if path.suffix == ".py":
        return _python(path, name or "model")
    raise error("FORGE-U002", f"{path} is neither Python (.py) nor an exported program (.pt2)")


def _exported(path: Path) -> Source:
    import torch

    from forgec.capture.quiet import quiet

    try:
        with quiet():
            return torch.export.load(path), (), {}, None
    except Exception as reason:
        first = str(reason).strip().splitlines() or [type(reason).__name__]
        raise error("FORGE-U002", f"{path} is no program that torch.export can load", notes=(first[0],)) from reason


def _python(path: Path, name: str) -> Source:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        namespace = _run(path)
        if name not in namespace:
            offered = sorted(k for k, v in namespace.items() if callable(v) and not k.startswith("_"))
            raise error(
                "FORGE-U002",
                f"{path} defines no {name!r}",
                notes=(f"it defines: {', '.join(offered)}",) if offered else (),
                help="define model and example_inputs at the top of the file",
            )
        model = namespace[name]
        if _is_factory(model, namespace):
            model = model()
        inputs = _value(namespace, "example_inputs")
        kwargs = _value(namespace, "example_kwargs")
        shapes = _value(namespace, "dynamic_shapes")
    except (Exception, SystemExit) as reason:
        from forgec.diagnostics import ForgeError

        if isinstance(reason, ForgeError):
            raise
        raise error(
            "FORGE-U006",
            f"{path} raised {type(reason).__name__}: {next(iter(str(reason).splitlines()), '')}",
            location=_where(reason, path),
            notes=tuple(line for line in str(reason).splitlines()[1:6] if line.strip()),
        ) from reason
    finally:
        sys.path.remove(folder)
    _check(path, name, model, inputs, kwargs)
    return model, () if inputs is None else inputs, kwargs or {}, shapes


def _run(path: Path) -> dict[str, Any]:
    """The names that a file defines. It stays importable as ``__forgec__``: tracing looks up where code comes from."""
    module = ModuleType("__forgec__")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    linecache.checkcache(str(path))
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module.__dict__


def _check(path: Path, name: str, model: Any, inputs: Any, kwargs: Any) -> None:
    import torch

    if not callable(model) and not isinstance(model, torch.export.ExportedProgram):
        raise error("FORGE-U002", f"{name!r} in {path} is a {type(model).__name__}, no module or callable")
    if isinstance(model, torch.export.ExportedProgram):
        return
    if inputs is None and kwargs is None:
        raise error(
            "FORGE-U002", f"{path} defines no example_inputs", help="define example_inputs = (…,) beside the model"
        )
    for label, value, kinds in (("example_inputs", inputs, (tuple, list)), ("example_kwargs", kwargs, (dict,))):
        if value is not None and not isinstance(value, kinds):
            raise error(
                "FORGE-C002", f"{label} in {path} is a {type(value).__name__}, it must be a {kinds[0].__name__}"
            )


def _is_factory(model: Any, namespace: Mapping[str, Any]) -> bool:
    """A function without required parameters returns the model, unless the file gives inputs that it takes."""
    if not inspect.isfunction(model):
        return False
    required = [p for p in inspect.signature(model).parameters.values() if p.default is p.empty]
    given = namespace.get("example_inputs")
    return not inspect.signature(model).parameters or (not required and not given)


def _value(namespace: Mapping[str, Any], name: str) -> Any:
    found = namespace.get(name)
    return found() if isinstance(found, Callable) and inspect.isfunction(found) else found


def _where(reason: BaseException, path: Path) -> Location | None:
    """The innermost line of the user's file in the traceback."""
    frames = [f for f in traceback.extract_tb(reason.__traceback__) if Path(f.filename).resolve() == path.resolve()]
    if isinstance(reason, SyntaxError) and reason.filename:
        return Location(str(path), reason.lineno or 0)
    return Location(str(path), frames[-1].lineno or 0, frames[-1].name.strip("<>")) if frames else None
