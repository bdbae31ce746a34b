"""Which functions and classes of the user's a model may run, as far as names tell."""

from __future__ import annotations

import dis
import sys
import types
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch

from forgec.capture.places import is_user_file, portable_path
from forgec.diagnostics import Location

MAX_FUNCTIONS = 5_000
"""How many functions are searched for the global variables that they use."""


def is_users_class(value: Any) -> bool:
    if not isinstance(value, type) or value.__module__.partition(".")[0] in ("builtins", "torch", "forgec"):
        return False
    file = file_of(value)
    return not file or is_user_file(file)


def file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def is_installed(file: str) -> bool:
    """True for code of a library: what it keeps in variables of its own, it caches."""
    return "site-packages" in file or "dist-packages" in file


def is_users_hook(value: Any) -> bool:
    """True for what the user's own code hooks into a module; libraries do so to look at what passes."""
    function = function_of(value) if callable(value) else None
    file = "" if function is None else function.__code__.co_filename
    return bool(file) and is_user_file(file) and not is_installed(file)


@dataclass
class Code:
    """Functions and classes of the user's that a module may use."""

    functions: list[types.FunctionType]
    classes: list[type]


def code_of(module: torch.nn.Module) -> Code:
    """What a module's ``forward`` may call, as far as names tell."""
    found: dict[int, types.FunctionType] = {}
    pending: deque[Any] = deque()
    classes: dict[type, None] = {}
    files = {file_of(type(child)) for child in module.modules()}

    def add(value: Any) -> None:
        function = function_of(value)
        if function is not None and id(function) not in found and len(found) < MAX_FUNCTIONS:
            file = function.__code__.co_filename
            if is_user_file(file) and (file in files or not is_installed(file)):
                found[id(function)] = function
                pending.append(function)
        elif (
            isinstance(value, type)
            and value not in classes
            and is_users_class(value)
            and (file_of(value) in files or not is_installed(file_of(value)))
        ):
            classes[value] = None
            for member in list(vars(value).values()):
                add(member)

    for child in module.modules():
        forward = vars(child).get("forward")
        function = function_of(forward)
        if function is not None and id(function) not in found:
            found[id(function)] = function
            pending.append(function)
        for cls in (*type(child).__mro__, *type(getattr(forward, "__self__", None)).__mro__):
            add(cls)
        hooks = [*child._forward_pre_hooks.values(), *child._forward_hooks.values()]
        for value in [*vars(child).values(), *hooks]:
            add(value)
    while pending:
        function = pending.popleft()
        add(getattr(function, "__wrapped__", None))
        for cell in function.__closure__ or ():
            with suppress(ValueError):
                add(cell.cell_contents)
                add(type(cell.cell_contents))
        for scope, name in variables_of(function):
            add(scope.get(name))
            if not isinstance(scope.get(name), (types.ModuleType, type)):
                add(type(scope.get(name)))
    return Code([*found.values()], [*classes])


def function_of(value: Any) -> types.FunctionType | None:
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, partial):
        value = value.func
    return value if isinstance(value, types.FunctionType) else None


def variables_of(function: types.FunctionType) -> Iterator[tuple[dict[str, Any], str]]:
    """The global variables that a function may use, also those of other modules of the user's (``settings.N``)."""
    names, scope = _names(function.__code__), function.__globals__
    for name in names:
        value = scope.get(name)
        if isinstance(value, types.ModuleType):
            file = getattr(value, "__file__", None) or ""
            if is_user_file(file) and not is_installed(file):
                yield from ((vars(value), inner) for inner in names if inner in vars(value))
        else:
            yield scope, name


@lru_cache(maxsize=16384)
def _names(code: types.CodeType) -> tuple[str, ...]:
    inner = (name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant))
    return tuple(dict.fromkeys((*code.co_names, *inner)))


def stored_at(name: str, functions: Sequence[types.FunctionType]) -> Location | None:
    """The first line that assigns a global variable, or one of an enclosing function."""
    return next((found for function in functions if (found := _store_in(function.__code__, name))), None)


def _store_in(code: types.CodeType, name: str) -> Location | None:
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = (instruction.positions.lineno if instruction.positions else None) or line
        stores = instruction.opname in ("STORE_GLOBAL", "STORE_DEREF") and name in code.co_names + code.co_freevars
        if stores and instruction.argval == name:
            return Location(portable_path(code.co_filename), line, code.co_qualname.strip("<>"))
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return next((found for constant in inner if (found := _store_in(constant, name))), None)


_STORES = ("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "STORE_DEREF")
_LOADS = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_DEREF")


def named_at(name: str, functions: Sequence[types.FunctionType]) -> Location | None:
    """The first line that assigns an attribute or a variable of this name; if none does, the first that names it."""
    for instructions in (_STORES, _LOADS):
        for function in functions:
            found = _line_of(function.__code__, name, instructions)
            if found is not None:
                return found
    return None


def _line_of(code: types.CodeType, name: str, instructions: tuple[str, ...]) -> Location | None:
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = (instruction.positions.lineno if instruction.positions else None) or line
        if instruction.opname in instructions and instruction.argval == name:
            return Location(portable_path(code.co_filename), line, code.co_qualname.strip("<>"))
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return next((found for constant in inner if (found := _line_of(constant, name, instructions))), None)
