"""The structure of arguments and results: nested containers with numbered leaves, as plain data and without torch.

Containers are list, tuple, dict (keys in order), named tuple, dataclass and transformers' ModelOutput (a dataclass
that is an OrderedDict). Everything else is a leaf, None too, and leaves are numbered depth first: the same leaves in
the same order as ``torch.utils._pytree`` gives, which leaves out the fields of a dataclass that are None.

Classes are named ``module:QualName``. A name that comes from an artifact imports nothing: a class is used when its
module is loaded already (or belongs to transformers and transformers is loaded) and the object found is such a class
with these fields; otherwise the value is rebuilt as a ``Record``, or as an ad-hoc named tuple.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["leaf", "list", "tuple", "dict", "namedtuple", "dataclass", "model_output"]
Key: TypeAlias = str | int | float | bool | None

MAX_DEPTH = 64
MAX_NODES = 100_000
_KINDS = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Tree:
    """One node. ``keys`` name the children of all kinds but list and tuple; ``absent`` are the fields that were None.

    ``cls`` names the class of a named tuple, dataclass or ModelOutput. ``leaves`` is the number of leaves below.
    """

    kind: Kind
    children: tuple[Tree, ...] = ()
    keys: tuple[Key, ...] = ()
    cls: str = ""
    absent: tuple[str, ...] = ()
    leaves: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        count = 1 if self.kind == "leaf" else sum(child.leaves for child in self.children)
        object.__setattr__(self, "leaves", count)


LEAF = Tree("leaf")


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
    if kind_of(value) != kind and not (isinstance(value, Record) and kind in ("dataclass", "model_output")):
        return False
    if kind in ("list", "tuple"):
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
        case "dict":
            return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(tree.keys, parts, strict=True)) + "}"
    name = tree.cls.rpartition(":")[2]
    return f"{name}({', '.join(f'{key}={part}' for key, part in zip(tree.keys, parts, strict=True))})"


def paths(tree: Tree, prefix: str) -> list[str]:
    """A name for each leaf: the prefix, then ``[0]``, ``['key']`` or ``.field`` for each container on the way."""
    if tree.kind == "leaf":
        return [prefix]
    names: list[str] = []
    for index, child in enumerate(tree.children):
        if tree.kind in ("list", "tuple"):
            part = f"[{index}]"
        else:
            part = f"[{tree.keys[index]!r}]" if tree.kind == "dict" else f".{tree.keys[index]}"
        names += paths(child, prefix + part)
    return names


def kind_of(value: Any) -> Kind:
    """Which kind of container the value is."""
    cls = type(value)
    if cls is tuple:
        return "tuple"
    if cls is list:
        return "list"
    if cls is dict:
        return "dict"
    if isinstance(value, tuple):
        return "namedtuple" if hasattr(cls, "_fields") else "tuple"
    if is_dataclass(cls):
        return "model_output" if isinstance(value, OrderedDict) else "dataclass"
    if isinstance(value, list):
        return "list"
    return "dict" if isinstance(value, dict) else "leaf"


def to_json(tree: Tree) -> Any:
    """The structure as JSON-compatible data: ``"*"`` for a leaf, else an object whose one list is named by the kind."""
    if tree.kind == "leaf":
        return "*"
    children = [to_json(child) for child in tree.children]
    if tree.kind in ("list", "tuple"):
        return {tree.kind: children}
    result: dict[str, Any] = {tree.kind: [[key, child] for key, child in zip(tree.keys, children, strict=True)]}
    if tree.kind != "dict":
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
    if kind in ("list", "tuple"):
        return Tree(kind, tuple(_flatten(child, leaves, depth + 1) for child in value))
    named = _named_children(value, kind)
    for key, _ in named:
        if not (key is None or isinstance(key, (str, int, float))):
            raise ValueError(f"a dict key of type {type(key).__name__} cannot be stored; use str or int keys")
    children = tuple(_flatten(child, leaves, depth + 1) for _, child in named)
    keys = tuple(key for key, _ in named)
    if kind == "dict":
        return Tree(kind, children, keys)
    cls = type(value)
    absent = () if kind == "namedtuple" else tuple(entry.name for entry in fields(value) if entry.name not in keys)
    return Tree(kind, children, keys, f"{cls.__module__}:{cls.__qualname__}", absent)


def _named_children(value: Any, kind: Kind) -> list[tuple[Any, Any]]:
    if kind == "namedtuple":
        return list(zip(value._fields, value, strict=True))
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
        case "dict":
            return dict(zip(tree.keys, children, strict=True))
    names = tuple(str(key) for key in tree.keys)
    cls = find_class(tree)
    if tree.kind == "namedtuple":
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
    if not isinstance(found, type):
        return None
    names = (*tree.keys, *tree.absent)
    if tree.kind == "namedtuple":
        return found if issubclass(found, tuple) and getattr(found, "_fields", None) == names else None
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
        named = kind not in ("list", "tuple")
        has_class = named and kind != "dict"
        allowed = {kind, "class", "absent"} if has_class else {kind}
        if not isinstance(entries, list) or not set(data) <= allowed or has_class != ("class" in data):
            raise ValueError(f"{path}: malformed {kind}")
        where = f"{path}.{kind}"
        if not named:
            return Tree(kind, tuple(self.decode(entry, f"{where}[{i}]", depth + 1) for i, entry in enumerate(entries)))
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

    def check_tuple(self, cls: str, keys: list[Key], path: str) -> None:
        try:
            _ad_hoc_tuple(cls.rpartition(".")[2].rpartition(":")[2], tuple(map(str, keys)))
        except ValueError as reason:
            raise ValueError(f"{path}: {reason}") from None
