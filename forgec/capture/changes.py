"""What a model's Python code changes when it runs, and the compiled program will not: attributes, variables, arguments.

All that the code can reach and change is looked at where the traced ``forward`` begins and where it ends. (torch.export
itself says nothing of most of these; it restores numbers, and leaves its own tensors without data in the rest.)
"""

from __future__ import annotations

import inspect
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from forgec.capture.places import calling_line
from forgec.capture.reached_code import (
    Code,
    code_of,
    file_of,
    is_installed,
    is_users_class,
    is_users_hook,
    stored_at,
    variables_of,
)
from forgec.diagnostics import Location

CHANGED = "forgec.changes"
"""Key in the exported graph's ``meta``: what the model changed while it was traced."""

MAX_OWNERS = 50_000
"""How many lists, dicts, objects and so on are looked at."""


@dataclass(frozen=True)
class Change:
    """``what`` is "attribute", "variable" (global, or of an enclosing function) or "argument"."""

    what: str
    name: str
    place: Location | None = None
    slots: tuple[Slot, ...] = field(default=(), compare=False, repr=False)
    """All that changed under the name: several items of one list have the list's."""


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a changed value is held, and what was held there when the first run began."""

    owner: Any
    key: tuple[str, Any]
    name: str
    before: Any
    after: Any
    shared: bool
    """True for what others may change at any time."""

    def put(self, value: Any) -> None:
        """Hold ``value`` instead, in an attribute, a variable, or an item of a dict or list."""
        kind, name = self.key
        if kind == "item":
            self.owner[name] = value
        elif isinstance(self.owner, types.CellType):
            self.owner.cell_contents = value
        elif isinstance(self.owner, type):
            type.__setattr__(self.owner, name, value)
        elif isinstance(self.owner, _Variables):
            self.owner.scope[name] = value
        elif _dict_of(self.owner) is not None and name not in _slots(type(self.owner)):
            vars(self.owner)[name] = value
        else:
            object.__setattr__(self.owner, name, value)

    def held(self) -> Any:
        """What is held now; ``ABSENT`` if there is nothing."""
        return _items(self.owner).get(self.key, ABSENT)

    @property
    def is_single(self) -> bool:
        """True if ``put`` can be used."""
        return self.key[0] == "attr" or (self.key[0] == "item" and isinstance(self.owner, (dict, list)))


ABSENT: Any = object()
"""Stands for an attribute or an item that is not there."""


@contextmanager
def changes(module: torch.nn.Module) -> Iterator[list[Change]]:
    """Records what each run of the module in the ``with`` block changes; afterwards all but the arguments is as it
    was.

    What torch's own modules assign to themselves is left out.
    """
    code = code_of(module)
    found: dict[tuple[str, str], Change] = {}
    result: list[Change] = []
    assigned: dict[tuple[int, str], Location | None] = {}
    entered: list[_Snapshot] = []
    original = torch.nn.Module.__setattr__

    def recording(self: torch.nn.Module, name: str, value: Any) -> None:
        assigned[id(self), name] = calling_line()
        original(self, name, value)

    def entering(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assigned.clear()
        snapshot = _Snapshot.of(module, code)
        for name, value in _arguments(module, args, kwargs):
            snapshot.add("argument", name, value)
        snapshot.take()
        entered.append(snapshot)

    def leaving(_: Any, args: Any, kwargs: Any, returned: Any) -> None:
        snapshot = entered.pop()
        for change in snapshot.changes(assigned, code.functions):
            known = found.setdefault((change.what, change.name), change)
            if known is not change:
                found[change.what, change.name] = replace(known, slots=known.slots + change.slots)
        snapshot.restore(_is_shared)

    before = _Snapshot.of(module, code)
    before.take()
    hooks = (
        module.register_forward_pre_hook(entering, prepend=True, with_kwargs=True),
        module.register_forward_hook(leaving, with_kwargs=True),
    )
    torch.nn.Module.__setattr__ = recording
    try:
        yield result
    finally:
        torch.nn.Module.__setattr__ = original
        for hook in hooks:
            hook.remove()
        for snapshot in reversed(entered):  # of runs that failed
            snapshot.restore(_is_shared)
        before.restore(lambda owner: not _is_shared(owner))
        result += sorted(found.values(), key=lambda change: (change.what, change.name))


@contextmanager
def restored(module: torch.nn.Module) -> Iterator[None]:
    """What the ``with`` block changes of what the module and its code can reach is as it was afterwards."""
    before = _Snapshot.of(module, code_of(module))
    before.take()
    try:
        yield
    finally:
        before.restore(lambda _: True)


# What can be changed
# ---------------------------------------------------------------------------------------------------------------------

_INTERNAL = frozenset(vars(torch.nn.Module())) - {"training"}
_REGISTRIES = ("_parameters", "_buffers", "_modules")
_BOOKS = tuple(
    name
    for name, value in vars(torch.nn.Module()).items()
    if isinstance(value, (dict, set)) and name not in _REGISTRIES
)
"""Where modules keep hooks, and which buffers are not saved: restored with the attributes that say they are there."""
_OPAQUE = (
    *("torch", "torchgen", "forgec", "numpy", "logging", "threading", "_thread", "multiprocessing", "concurrent"),
    *("asyncio", "weakref", "typing", "types", "inspect", "functools", "re", "contextvars", "contextlib", "abc", "io"),
)
"""Packages whose objects are left alone (``types.SimpleNamespace`` and modules of torch are not)."""

_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class _Variables:
    """The variables of a Python module that some functions name."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.names: set[str] = set()


@dataclass
class _Owner:
    """Something that holds values which code can replace."""

    value: Any
    what: str
    path: str
    items: dict[Any, Any] = field(default_factory=dict)


class _Snapshot:
    """Everything that can be changed below some roots, and what it holds."""

    def __init__(self) -> None:
        self.owners: dict[int, _Owner] = {}
        self._pending: deque[_Owner] = deque()

    @staticmethod
    def of(module: torch.nn.Module, code: Code) -> _Snapshot:
        """What a module and its code can reach; ``take`` has to be called."""
        snapshot = _Snapshot()
        for path, child in module.named_modules():
            snapshot.add("attribute", path, child)
        for cls in code.classes:
            snapshot.add("attribute", cls.__name__, cls)
        bound = getattr(vars(module).get("forward"), "__self__", None)
        snapshot.add("attribute", "", bound)
        scopes: dict[int, _Variables] = {}
        for function in code.functions:
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                snapshot.add("variable", name, cell)
            for scope, name in variables_of(function):
                scopes.setdefault(id(scope), _Variables(scope)).names.add(name)
        for variables in scopes.values():
            snapshot.add("variable", "", variables)
        return snapshot

    def add(self, what: str, path: str, value: Any) -> None:
        if id(value) not in self.owners and len(self.owners) < MAX_OWNERS and _is_owner(value, what):
            self.owners[id(value)] = owner = _Owner(value, what, path)
            self._pending.append(owner)

    def take(self) -> None:
        """Look at all that is reached from what was added, nearest first."""
        while self._pending:
            owner = self._pending.popleft()
            owner.items = _items(owner.value)
            for key, value in owner.items.items():
                for inner in _parts(value):
                    self.add(owner.what, _path(owner, key), inner)

    def changes(
        self, assigned: dict[tuple[int, str], Location | None], functions: Sequence[types.FunctionType]
    ) -> Iterator[Change]:
        """What is another now."""
        for owner in self.owners.values():
            now = _items(owner.value)
            for key in dict.fromkeys((*owner.items, *now)):
                if not _differs(owner, key, now):
                    continue
                kind, name = key
                if kind in _BOOKS:
                    if is_users_hook(owner.items.get(key, now.get(key))):
                        yield Change(owner.what, f"{owner.path}.{kind}".lstrip("."))
                    continue
                place = None
                if isinstance(owner.value, torch.nn.Module) and kind in ("attr", "_buffers", "_parameters"):
                    place = assigned.get((id(owner.value), name))
                    if place is None and (id(owner.value), name) in assigned:
                        continue
                elif isinstance(owner.value, (_Variables, types.CellType)):
                    place = stored_at(owner.path if isinstance(owner.value, types.CellType) else name, functions)
                before, after = owner.items.get(key, ABSENT), now.get(key, ABSENT)
                slot = Slot(owner.value, key, _path(owner, key), before, after, _is_shared(owner))
                yield Change(owner.what, _changed_name(owner, key), place, (slot,))

    def restore(self, chosen: Callable[[_Owner], bool]) -> None:
        """What is chosen holds again what it held."""
        for owner in filter(chosen, self.owners.values()):
            now = _items(owner.value)
            same = [*now] == [*owner.items] and all(now[key] is value for key, value in owner.items.items())
            if not same:
                with suppress(Exception):  # what cannot be written now has been written by other means
                    _write(owner.value, owner.items, now)


def _is_shared(owner: _Owner) -> bool:
    """True for what others may change at any time: for these only what happens inside ``forward`` is undone."""
    return owner.what == "variable" or isinstance(owner.value, type)


def _changed_name(owner: _Owner, key: Any) -> str:
    if owner.what == "argument":
        return owner.path.partition("[")[0].partition(".")[0]
    return owner.path if key[0] == "item" and owner.path else _path(owner, key)


def _path(owner: _Owner, key: Any) -> str:
    """What to call an item: attributes by their names, items of containers by their keys."""
    kind, name = key
    if isinstance(owner.value, types.CellType):
        return owner.path
    if kind == "item":
        return f"{owner.path}[{name!r}]" if isinstance(name, (str, int)) else owner.path
    return f"{owner.path}.{name}".lstrip(".")


_OWNERS = (list, dict, set, deque, torch.nn.Module, types.CellType, types.SimpleNamespace, _Variables)


def _is_owner(value: Any, what: str) -> bool:
    """True for what holds values that code can replace; of the objects in variables, those of the user's classes."""
    cls = type(value)
    if issubclass(cls, type):
        return is_users_class(value)
    if issubclass(cls, _OWNERS):
        return True
    if issubclass(cls, (torch.Tensor, types.ModuleType)) or inspect.isroutine(value):
        return False
    if what == "variable" and (not is_users_class(cls) or is_installed(file_of(cls))):
        return False
    return cls.__module__.partition(".")[0] not in _OPAQUE and (_dict_of(value) is not None or bool(_slots(cls)))


def _parts(value: Any) -> Iterator[Any]:
    """A value, or what a tuple consists of."""
    if type(value) is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
        for item in value:
            yield from _parts(item)
    elif not isinstance(value, type):  # the classes that matter are roots
        yield value


def _dict_of(value: Any) -> dict[str, Any] | None:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


@lru_cache(maxsize=4096)
def _slots(cls: type) -> tuple[str, ...]:
    if cls.__module__ == "builtins":
        return ()
    members = ((n, m) for c in cls.__mro__ for n, m in vars(c).items())
    return tuple(n for n, member in members if isinstance(member, types.MemberDescriptorType) and n[:2] != "__")


def _items(owner: Any) -> dict[Any, Any]:
    """What an owner holds: values by ("attr", name), ("item", key), or for modules (registry, name)."""
    if isinstance(owner, _Variables):
        return {("attr", name): owner.scope[name] for name in sorted(owner.names) if name in owner.scope}
    if isinstance(owner, types.CellType):
        try:
            return {("attr", ""): owner.cell_contents}
        except ValueError:
            return {}
    if isinstance(owner, type):
        return {("attr", n): v for n, v in vars(owner).items() if _is_class_state(n, v)}
    found: dict[Any, Any] = {}
    if isinstance(owner, torch.nn.Module):
        held = vars(owner)
        for registry in (*_REGISTRIES, *_BOOKS):
            entries = held.get(registry, {})
            found.update({(registry, e): entries[e] if isinstance(entries, dict) else e for e in entries})
        found.update({("attr", name): value for name, value in held.items() if name not in _INTERNAL})
        return found
    if isinstance(owner, dict):
        found.update({("item", key): value for key, value in dict.items(owner)})
    elif isinstance(owner, set):
        found.update({("item", element): element for element in owner})
    elif isinstance(owner, (list, deque)):
        found.update({("item", index): value for index, value in enumerate(owner)})
    found.update({("attr", name): value for name, value in (_dict_of(owner) or {}).items()})
    for name in _slots(type(owner)):
        with suppress(AttributeError):
            found["attr", name] = object.__getattribute__(owner, name)
    return found


def _is_class_state(name: str, value: Any) -> bool:
    routine = inspect.isroutine(value) or isinstance(value, (property, staticmethod, classmethod, type))
    return not routine and not name.startswith(("__", "_abc_")) and not hasattr(type(value), "__get__")


def _differs(owner: _Owner, key: Any, now: dict[Any, Any]) -> bool:
    """True if an item is not what it was. A tensor in place of another in a buffer is torch.export's affair."""
    if key not in now or key not in owner.items:
        return True
    before, after = owner.items[key], now[key]
    if key[0] == "_buffers" and isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return False
    return not _same(before, after, 8)


def _same(before: Any, after: Any, depth: int) -> bool:
    """True if one value is as good as the other; tensors and objects are only if they are the same."""
    if before is after:
        return True
    if type(before) is not type(after) or depth == 0:
        return False
    if type(before) in _SCALARS:
        return before == after or (before != before and after != after)
    if type(before) in (list, tuple):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(_same(a, b, depth - 1) for a, b in pairs)
    if type(before) is dict:
        return before.keys() == after.keys() and all(_same(v, after[k], depth - 1) for k, v in before.items())
    return type(before) is set and {(type(v), id(v)) for v in before} == {(type(v), id(v)) for v in after}


def _write(owner: Any, items: dict[Any, Any], now: dict[Any, Any]) -> None:
    if isinstance(owner, types.CellType):
        owner.cell_contents = items["attr", ""]
        return
    attributes = {name: value for (kind, name), value in items.items() if kind == "attr"}
    gone = [name for kind, name in now if kind == "attr" and name not in attributes]
    if isinstance(owner, type):
        for name in gone:
            type.__delattr__(owner, name)
        for name, value in attributes.items():
            if vars(owner).get(name) is not value:
                type.__setattr__(owner, name, value)
        return
    scope = owner.scope if isinstance(owner, _Variables) else _dict_of(owner)
    for name in gone:
        if scope is not None:
            scope.pop(name, None)
    for name, value in attributes.items():
        if scope is not None and name not in _slots(type(owner)):
            scope[name] = value
        else:
            object.__setattr__(owner, name, value)
    if isinstance(owner, torch.nn.Module):
        for registry in (*_REGISTRIES, *_BOOKS):
            held = vars(owner).get(registry)
            if held is not None:
                held.clear()
                held.update({name: value for (kind, name), value in items.items() if kind == registry})
    _write_items(owner, {key: value for (kind, key), value in items.items() if kind == "item"})


def _write_items(owner: Any, held: dict[Any, Any]) -> None:
    if isinstance(owner, list):
        list.__setitem__(owner, slice(None), [*held.values()])
    elif isinstance(owner, deque):
        deque.clear(owner)
        deque.extend(owner, held.values())
    elif isinstance(owner, set):
        set.clear(owner)
        set.update(owner, held)
    elif isinstance(owner, dict):
        base: Any = OrderedDict if isinstance(owner, OrderedDict) else dict
        base.clear(owner)
        for key, value in held.items():
            base.__setitem__(owner, key, value)


def _arguments(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments of a call by the names of the parameters."""
    names: list[str] = []
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(module.forward).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for index, value in enumerate(args):
        yield names[index] if index < len(names) else f"argument {index + 1}", value
    yield from kwargs.items()
