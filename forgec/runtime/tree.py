"""The structure of arguments and results: nested containers with numbered leaves, as plain data and without torch.

Containers are list, tuple, deque, dict and OrderedDict (keys in order), named tuple (``torch.return_types.sort`` is
one), dataclass, transformers' ModelOutput (a dataclass that is an OrderedDict), and what is registered with
``torch.utils._pytree`` in this process. Everything else is a leaf, None too, and leaves are numbered depth first: the
same leaves in the same order as ``torch.utils._pytree`` gives, which leaves out the fields of a dataclass that are
None.

Classes are named ``module:QualName``. A name that comes from an artifact imports nothing: a class is used when its
module is loaded already (or belongs to transformers and transformers is loaded) and the object found is such a class
with these fields; otherwise the value is rebuilt as a ``Record``, or as an ad-hoc named tuple. Only for a registered
class there is no substitute: FORGE-R012.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

from forgec.diagnostics import ForgeError, error

Kind: TypeAlias = Literal[
    "leaf", "list", "tuple", "deque", "dict", "ordered_dict", "namedtuple", "dataclass", "model_output", "registered"
]  # fmt: skip
Key: TypeAlias = str | int | float | bool | None

MAX_DEPTH = 64
MAX_NODES = 100_000
_KINDS = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Tree:
    """One node. ``keys`` name the children of all kinds but those in ``LISTS``; ``absent`` are the fields that were
    None.

    ``cls`` names the class of a named tuple, dataclass, ModelOutput or registered container, ``context`` is what the
    last keeps beside its children, as JSON; of a deque it is the greatest length. ``leaves`` is the number of
    leaves below.
    """

    kind: Kind
    children: tuple[Tree, ...] = ()
    keys: tuple[Key, ...] = ()
    cls: str = ""
    absent: tuple[str, ...] = ()
    context: str = ""
    leaves: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        count = 1 if self.kind == "leaf" else sum(child.leaves for child in self.children)
        object.__setattr__(self, "leaves", count)


LEAF = Tree("leaf")
LISTS = ("list", "tuple", "deque", "registered")
"""Kinds whose children have no names."""
DICTS = ("dict", "ordered_dict")
"""Kinds whose children have keys; an argument of one serves for the other."""


class Record(dict[str, Any]):
    """A dataclass or ModelOutput whose class is not at hand: a dict with attribute access, fields that were None
    included.

    ``record[0]`` and ``record[:2]`` index the values by position, as ModelOutput does; ``class_name`` is the original
    class.
    """

    class_name: str

    def __init__(self, class_name: str, items: Iterable[tuple[str, Any]], absent: Iterable[str] = ()) -> None:
        super().__init__(items)
        object.__setattr__(self, "class_name", class_name)
        object.__setattr__(self, "_absent", frozenset(absent))

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return dict.__getitem__(self, name)
        if name in object.__getattribute__(self, "_absent"):
            return None
        raise AttributeError(f"{self.class_name} has no field '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, (int, slice)) else dict.__getitem__(self, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Record, (self.class_name, list(self.items()), sorted(object.__getattribute__(self, "_absent"))))

    def __repr__(self) -> str:
        name = self.class_name.rpartition(":")[2]
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """The leaves of the value, depth first, and its structure. ``ValueError`` for dict keys other than str, number or
    None."""
    leaves: list[Any] = []
    return leaves, _flatten(value, leaves, 0)


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """The value with this structure and these leaves. ``ValueError`` when their number differs."""
    if len(leaves) != tree.leaves:
        raise ValueError(f"{len(leaves)} leaves for a structure of {tree.leaves}")
    return _unflatten(tree, iter(leaves))


def match(tree: Tree, value: Any, leaves: list[Any]) -> bool:
    """Whether the value has this structure; appends its leaves. Dict keys may stand in another order, classes may
    differ by name."""
    kind = tree.kind
    if kind == "leaf":
        leaves.append(value)
        return kind_of(value) == "leaf"
    given = kind_of(value)
    if given != kind and not (
        (given in DICTS and kind in DICTS) or (isinstance(value, Record) and kind in ("dataclass", "model_output"))
    ):
        return False
    if kind == "registered":
        children, context = flatten_registered(value)
        if (class_name(type(value)), context) != (tree.cls, tree.context):
            return False
    elif kind in LISTS:
        children: Any = value
    else:
        named = dict(_named_children(value, kind))
        if len(named) != len(tree.keys) or any(key not in named for key in tree.keys):
            return False
        children = [named[key] for key in tree.keys]
    if len(children) != len(tree.children):
        return False
    return all(match(child, part, leaves) for child, part in zip(tree.children, children, strict=True))


def describe(tree: Tree, leaf: Callable[[], str]) -> str:
    """The structure in Python's notation; ``leaf`` is called for the text of each leaf in order."""
    if tree.kind == "leaf":
        return leaf()
    parts = [describe(child, leaf) for child in tree.children]
    match tree.kind:
        case "list":
            return f"[{', '.join(parts)}]"
        case "tuple":
            return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
        case "deque":
            return f"deque([{', '.join(parts)}])"
        case "dict" | "ordered_dict":
            return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(tree.keys, parts, strict=True)) + "}"
    name = tree.cls.rpartition(":")[2]
    if tree.kind == "registered":
        return f"{name}({', '.join(parts)})"
    return f"{name}({', '.join(f'{key}={part}' for key, part in zip(tree.keys, parts, strict=True))})"


def paths(tree: Tree, prefix: str) -> list[str]:
    """A name for each leaf: the prefix, then ``[0]``, ``['key']`` or ``.field`` for each container on the way."""
    if tree.kind == "leaf":
        return [prefix]
    names: list[str] = []
    for index, child in enumerate(tree.children):
        if tree.kind in LISTS:
            part = f"[{index}]"
        else:
            part = f"[{tree.keys[index]!r}]" if tree.kind in DICTS else f".{tree.keys[index]}"
        names += paths(child, prefix + part)
    return names


def kind_of(value: Any) -> Kind:
    """Which kind of container the value is."""
    cls = type(value)
    if cls in _LEAVES:
        return "leaf"
    if cls is tuple:
        return "tuple"
    if cls is list:
        return "list"
    if cls is dict:
        return "dict"
    if cls is OrderedDict:
        return "ordered_dict"
    if cls is deque:
        return "deque"
    if is_dataclass(cls):
        return "model_output" if isinstance(value, OrderedDict) else "dataclass"
    if isinstance(value, tuple) and _field_names(cls) is not None:
        return "namedtuple"
    if is_registered(cls):
        return "registered"
    if isinstance(value, (list, tuple)):
        return "list" if isinstance(value, list) else "tuple"
    if isinstance(value, dict):
        return "dict"
    if cls.__module__ in ("torch", "builtins"):  # nobody can make containers of these
        _LEAVES.add(cls)
    return "leaf"


_LEAVES: set[type] = set()


def _field_names(cls: type) -> tuple[str, ...] | None:
    """The fields of a named tuple, or of a tuple of CPython's with names for all its elements."""
    if hasattr(cls, "n_sequence_fields"):
        return getattr(cls, "__match_args__", None) if cls.n_sequence_fields == cls.n_fields else None  # type: ignore[attr-defined]
    return getattr(cls, "_fields", None)


# Registered containers
# ---------------------------------------------------------------------------------------------------------------------


def is_registered(cls: Any) -> bool:
    """True for a class that somebody else than Python and torch has registered with ``torch.utils._pytree``."""
    pytree = sys.modules.get("torch.utils._pytree")
    if pytree is None or cls not in pytree.SUPPORTED_NODES or not isinstance(cls, type):
        return False
    return cls.__module__.partition(".")[0] not in ("torch", "builtins", "collections")


def class_name(cls: type) -> str:
    """A class as trees name it."""
    return f"{cls.__module__}:{cls.__qualname__}"


def context_text(cls: type, context: Any) -> str:
    """What a registered container keeps beside its children, as JSON. ``ValueError`` where it cannot be said so."""
    serialized = _pytree().SUPPORTED_SERIALIZED_TYPES.get(cls)
    dump = None if serialized is None else serialized.to_dumpable_context
    try:
        return json.dumps(context if dump is None else dump(context))
    except TypeError as reason:
        text = f"the context of a {cls.__name__} is no JSON ({reason}); register it with to_dumpable_context"
        raise ValueError(text) from reason


def _registered_as(name: str) -> type[Any] | None:
    """The registered class of a name that no module has: one defined in a function."""
    pytree = sys.modules.get("torch.utils._pytree")
    known = () if pytree is None else [*pytree.SUPPORTED_NODES]
    return next((cls for cls in reversed(known) if is_registered(cls) and class_name(cls) == name), None)


def flatten_registered(value: Any) -> tuple[list[Any], str]:
    """The children of a registered container, and its context."""
    children, context = _pytree().SUPPORTED_NODES[type(value)].flatten_fn(value)
    return list(children), context_text(type(value), context)


def _unflatten_registered(tree: Tree, children: list[Any]) -> Any:
    cls = find_class(tree)
    if cls is None:
        raise unknown(tree)
    serialized = _pytree().SUPPORTED_SERIALIZED_TYPES.get(cls)
    load = None if serialized is None else serialized.from_dumpable_context
    context = json.loads(tree.context)
    return _pytree().SUPPORTED_NODES[cls].unflatten_fn(children, context if load is None else load(context))


def unknown(tree: Tree) -> ForgeError:
    """The error for a container whose class this process does not have."""
    module, _, name = tree.cls.partition(":")
    return error(
        "FORGE-R012",
        f"the program takes or returns a {name}, which is not registered with torch.utils._pytree in this process",
        help=f"import {module}, or whatever defines and registers the class, before the call",
    )


def registered(tree: Tree) -> list[Tree]:
    """The nodes of registered containers."""
    below = [node for child in tree.children for node in registered(child)]
    return [tree, *below] if tree.kind == "registered" else below


def _pytree() -> Any:
    return sys.modules["torch.utils._pytree"]


# JSON
# ---------------------------------------------------------------------------------------------------------------------


def to_json(tree: Tree) -> Any:
    """The structure as JSON-compatible data: ``"*"`` for a leaf, else an object whose one list is named by the kind."""
    if tree.kind == "leaf":
        return "*"
    children = [to_json(child) for child in tree.children]
    if tree.kind == "registered":
        return {tree.kind: children, "class": tree.cls, "context": tree.context}
    if tree.kind == "deque":
        return {tree.kind: children, "context": tree.context}
    if tree.kind in LISTS:
        return {tree.kind: children}
    result: dict[str, Any] = {tree.kind: [[key, child] for key, child in zip(tree.keys, children, strict=True)]}
    if tree.kind not in DICTS:
        result["class"] = tree.cls
    if tree.absent:
        result["absent"] = list(tree.absent)
    return result


def from_json(data: object) -> Tree:
    """The inverse of ``to_json``. ``ValueError`` with the place when the data are anything else."""
    return _Decoder().decode(data, "", 0)


def _flatten(value: Any, leaves: list[Any], depth: int) -> Tree:
    kind = kind_of(value)
    if kind == "leaf":
        leaves.append(value)
        return LEAF
    if depth > MAX_DEPTH:
        raise ValueError(f"containers are nested more than {MAX_DEPTH} deep")
    if kind == "registered":
        inner, context = flatten_registered(value)
        parts = tuple(_flatten(child, leaves, depth + 1) for child in inner)
        return Tree(kind, parts, cls=class_name(type(value)), context=context)
    if kind in LISTS:
        parts = tuple(_flatten(child, leaves, depth + 1) for child in value)
        return Tree(kind, parts, context=json.dumps(value.maxlen) if kind == "deque" else "")
    named = _named_children(value, kind)
    for key, _ in named:
        if not (key is None or isinstance(key, (str, int, float))):
            raise ValueError(f"the dict key {key!r} is a {type(key).__name__}; keys must be texts or numbers")
    children = tuple(_flatten(child, leaves, depth + 1) for _, child in named)
    keys = tuple(key for key, _ in named)
    if kind in DICTS:
        return Tree(kind, children, keys)
    cls = type(value)
    absent = () if kind == "namedtuple" else tuple(entry.name for entry in fields(value) if entry.name not in keys)
    return Tree(kind, children, keys, class_name(cls), absent)


def _named_children(value: Any, kind: Kind) -> list[tuple[Any, Any]]:
    if kind == "namedtuple":
        return list(zip(_field_names(type(value)) or (), value, strict=True))
    if kind == "dataclass" and not isinstance(value, Record):
        pairs = ((entry.name, getattr(value, entry.name)) for entry in fields(value))
        return [(name, part) for name, part in pairs if part is not None]
    return list(value.items())


def _unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.kind == "leaf":
        return next(leaves)
    children = [_unflatten(child, leaves) for child in tree.children]
    match tree.kind:
        case "list":
            return children
        case "tuple":
            return tuple(children)
        case "deque":
            return deque(children, maxlen=json.loads(tree.context))
        case "ordered_dict":
            return OrderedDict(zip(tree.keys, children, strict=True))
        case "dict":
            return dict(zip(tree.keys, children, strict=True))
        case "registered":
            return _unflatten_registered(tree, children)
    names = tuple(str(key) for key in tree.keys)
    cls = find_class(tree)
    if tree.kind == "namedtuple":
        if cls is not None and hasattr(cls, "n_sequence_fields"):
            return cls(children)
        return (cls or _ad_hoc_tuple(tree.cls.rpartition(".")[2].rpartition(":")[2], names))(*children)
    named = dict(zip(names, children, strict=True))
    if cls is None:
        return Record(tree.cls, named.items(), tree.absent)
    if tree.kind == "dataclass":
        named.update(dict.fromkeys(tree.absent))
    return cls(**named)


def find_class(tree: Tree) -> type[Any] | None:
    """The class that the node names, if it is loaded, of the right kind, and takes exactly the node's fields."""
    module_name, _, qualname = tree.cls.partition(":")
    found: Any = sys.modules.get(module_name)
    if found is None and module_name.startswith("transformers.") and "transformers" in sys.modules:
        import importlib

        try:
            found = importlib.import_module(module_name)
        except Exception:  # an optional dependency of that submodule may be missing: the Record serves
            return None
    # Through __dict__, because a module's __getattr__ (transformers, torch, forgec) may import whatever it is asked
    # for.
    for part in qualname.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if tree.kind == "registered":
        return found if is_registered(found) else _registered_as(tree.cls)
    if not isinstance(found, type):
        return None
    names = (*tree.keys, *tree.absent)
    if tree.kind == "namedtuple":
        return found if issubclass(found, tuple) and _field_names(found) == names else None
    if not is_dataclass(found) or issubclass(found, OrderedDict) != (tree.kind == "model_output"):
        return None
    declared = {entry.name for entry in fields(found) if entry.init}
    return found if declared == set(names) else None


@lru_cache(maxsize=256)
def _ad_hoc_tuple(name: str, names: tuple[str, ...]) -> Callable[..., Any]:
    return namedtuple(name, names)  # type: ignore[return-value]


class _Decoder:
    def __init__(self) -> None:
        self.nodes = 0

    def decode(self, data: object, path: str, depth: int) -> Tree:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise ValueError(f"{path}: nested too deep or too large")
        if data == "*":
            return LEAF
        kind = next((key for key in data if key in _KINDS), None) if isinstance(data, dict) else None
        if not isinstance(data, dict) or kind is None or kind == "leaf":
            raise ValueError(f"{path}: expected a leaf or one kind of container")
        entries = data[kind]
        named = kind not in LISTS
        has_class = kind not in ("list", "tuple", "deque", *DICTS)
        allowed = {kind, "class", "absent" if named else "context"} if has_class else {kind}
        if kind == "deque":
            allowed.add("context")
        if not isinstance(entries, list) or not set(data) <= allowed or has_class != ("class" in data):
            raise ValueError(f"{path}: malformed {kind}")
        where = f"{path}.{kind}"
        if not named:
            parts = tuple(self.decode(entry, f"{where}[{i}]", depth + 1) for i, entry in enumerate(entries))
            if has_class:
                self.check_class(data["class"], f"{path}.class")
                self.check_context(data.get("context"), f"{path}.context")
            if kind == "deque":
                self.check_length(data.get("context"), len(parts), f"{path}.context")
            return Tree(kind, parts, cls=data.get("class", ""), context=data.get("context", ""))
        children: list[Tree] = []
        keys: list[Key] = []
        for index, entry in enumerate(entries):
            if not isinstance(entry, list) or len(entry) != 2:
                raise ValueError(f"{where}[{index}]: expected a key and a child")
            keys.append(self.key(entry[0], f"{where}[{index}]", fields_only=has_class))
            children.append(self.decode(entry[1], f"{where}[{index}]", depth + 1))
        absent = data.get("absent", [])
        if not isinstance(absent, list) or (absent and kind == "namedtuple"):
            raise ValueError(f"{path}.absent: expected a list of field names")
        missing = [self.key(name, f"{path}.absent", fields_only=True) for name in absent]
        if len({*keys, *missing}) != len(keys) + len(missing):
            raise ValueError(f"{where}: a key occurs twice")
        cls = data.get("class", "")
        if has_class:
            self.check_class(cls, f"{path}.class")
            if kind == "namedtuple":
                self.check_tuple(cls, keys, path)
        return Tree(kind, tuple(children), tuple(keys), cls, tuple(map(str, missing)))

    def key(self, key: object, path: str, fields_only: bool) -> Key:
        if isinstance(key, str) and (key.isidentifier() or not fields_only):
            return key
        if not fields_only and (key is None or isinstance(key, (int, float))):
            return key
        raise ValueError(f"{path}: not a key")

    def check_class(self, cls: object, path: str) -> None:
        module, colon, qualname = cls.partition(":") if isinstance(cls, str) else ("", "", "")
        parts = [*module.split("."), *(part for part in qualname.split(".") if part != "<locals>")]
        if not colon or len(parts) > 32 or not all(part.isidentifier() for part in parts):
            raise ValueError(f"{path}: expected module:QualName")

    def check_context(self, context: object, path: str) -> None:
        try:
            json.loads(context if isinstance(context, str) else "")
        except (ValueError, RecursionError):
            raise ValueError(f"{path}: expected JSON") from None

    def check_length(self, context: object, length: int, path: str) -> None:
        self.check_context(context, path)
        bound = json.loads(str(context))
        if bound is not None and (type(bound) is not int or not length <= bound < 2**31):
            raise ValueError(f"{path}: not the greatest length of a deque")

    def check_tuple(self, cls: str, keys: list[Key], path: str) -> None:
        try:
            _ad_hoc_tuple(cls.rpartition(".")[2].rpartition(":")[2], tuple(map(str, keys)))
        except ValueError as reason:
            raise ValueError(f"{path}: {reason}") from None
