"""Which passes exist: derived from this folder, so that adding a pass means adding one file.

A module ``forgec/passes/<verb_phrase>.py`` is a pass when it says ``name = "<verb-phrase>"``, its own name in kebab
case. That line is searched for in the source, so listing the passes imports none of them; a test checks that no
module defines a pass under another name than its file's.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec

from xdsl.passes import ModulePass

PassFactory = Callable[[], type[ModulePass]]

_ADDED: dict[str, PassFactory] = {}


def available_passes() -> dict[str, PassFactory]:
    """forgec's own passes by name, sorted. Calling a value imports the pass."""
    return dict(sorted({**{name: _importer(name) for name in _names_in_folder()}, **_ADDED}.items()))


def all_passes() -> dict[str, PassFactory]:
    """forgec's passes and xDSL's; where both have a pass of one name (``canonicalize``, ``cse``), forgec's is meant."""
    from xdsl.transforms import get_all_passes

    return {**get_all_passes(), **available_passes()}


@contextmanager
def added_passes(*passes: type[ModulePass]) -> Iterator[None]:
    """Makes passes that live elsewhere available under their names, for the duration of a ``with`` block."""
    before = dict(_ADDED)
    _ADDED.update({pass_class.name: _constant(pass_class) for pass_class in passes})
    try:
        yield
    finally:
        _ADDED.clear()
        _ADDED.update(before)


def _constant(pass_class: type[ModulePass]) -> PassFactory:
    return lambda: pass_class


@cache
def _names_in_folder() -> tuple[str, ...]:
    package = importlib.import_module("forgec.passes")
    names: list[str] = []
    for info in pkgutil.iter_modules(package.__path__):
        name = info.name.replace("_", "-")
        if re.search(rf'^    name(?:: [^=\n]+)? = "{name}"$', _source(f"forgec.passes.{info.name}"), re.MULTILINE):
            names.append(name)
    return tuple(names)


def _source(module_name: str) -> str:
    spec = find_spec(module_name)
    assert spec is not None, module_name
    assert isinstance(spec.loader, SourceFileLoader), module_name
    return spec.loader.get_source(module_name) or ""


def _importer(name: str) -> PassFactory:
    def load() -> type[ModulePass]:
        module = importlib.import_module(f"forgec.passes.{name.replace('-', '_')}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, ModulePass) and vars(value).get("name") == name:
                return value
        raise AssertionError(f"{module.__name__} defines no ModulePass named {name!r}")

    return load
