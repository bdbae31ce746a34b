"""Pipelines as text: ``canonicalize,cse,unroll{factor=4},@O2``; presets are named strings, written ``@NAME``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args, get_type_hints

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.passes.registry import PassFactory, all_passes

PRESETS: dict[str, str] = {
    "@O0": "",
    "@O1": "canonicalize,cse,dce",
    "@attention": "canonicalize,cse,constant-fold{max-bytes=8},expand-einsum,fuse-softmax,fuse-attention,canonicalize,"
    "classify-masks,dce,constant-fold,cse,canonicalize,group-query-heads,canonicalize",
    "@recognize": "fuse-dequantize,fuse-rope,canonicalize,cse,group-query-heads,fuse-norm,fuse-batch-norm,"
    "fuse-activation,canonicalize,fuse-glu,canonicalize",
    "@experts": "fuse-moe,canonicalize",
    "@kernels": "fuse-linear,canonicalize,cse,merge-linears,canonicalize,assign-layout,fuse-epilogue,"
    "fuse-elementwise,fuse-indexing",
    "@O2": "cse,dce,roll-loops,outline-layers{unnamed=false},sink-tables,@attention,@recognize,@experts,"
    "select-masked-rows,hoist-tables,cse,canonicalize,@kernels,dce",
    "@tile": "lower-to-tile,bind-tiles",
}


def expand(pipeline: str, presets: Mapping[str, str] = PRESETS) -> str:
    """The pipeline with every preset replaced by what it stands for, recursively. Raises FORGE-P001 and FORGE-P002."""
    return ",".join(_elements(pipeline, presets))


def parse(pipeline: str, passes: Mapping[str, PassFactory] | None = None) -> tuple[ModulePass, ...]:
    """The passes that a pipeline's text stands for, with their options.

    Raises FORGE-P001 for unknown passes and presets, FORGE-P002 for bad syntax and bad options: all of them together.
    """
    known = all_passes() if passes is None else passes
    parsed: list[ModulePass] = []
    diagnostics: list[Diagnostic] = []
    for item in _split(pipeline):
        try:
            parsed += [_parse_element(element, known) for element in _elements(item, PRESETS)]
        except ForgeError as exc:
            diagnostics += exc.diagnostics
    if diagnostics:
        raise ForgeError(diagnostics)
    return tuple(parsed)


def text_of(passes: Iterable[ModulePass]) -> str:
    """The text that parses to these passes; options at their defaults are left out."""
    return ",".join(_element_text(pass_.pipeline_pass_spec()) for pass_ in passes)


def _element_text(spec: ArgSpec) -> str:
    return str(ArgSpec(spec.name, {name.replace("_", "-"): value for name, value in spec.parameters.items()}))


def _elements(pipeline: str, presets: Mapping[str, str], outer: tuple[str, ...] = ()) -> list[str]:
    elements: list[str] = []
    for element in _split(pipeline):
        if not element.startswith("@"):
            elements.append(element)
        elif element not in presets:
            raise _unknown("preset", element, presets)
        elif element in outer:
            raise error("FORGE-P002", f"preset {element} contains itself: {' > '.join((*outer, element))}")
        else:
            elements += _elements(presets[element], presets, (*outer, element))
    return elements


def _split(pipeline: str) -> list[str]:
    """Cuts at the commas that stand outside braces, brackets and quotes. An empty pipeline has no elements."""
    if not pipeline.strip():
        return []
    elements, start, closers, quoted, escaped = [], 0, "", False, False
    for index, character in enumerate(pipeline):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "{[":
            closers = ("}" if character == "{" else "]") + closers
        elif closers and character == closers[0]:
            closers = closers[1:]
        elif character == "," and not closers:
            elements.append(pipeline[start:index].strip())
            start = index + 1
    if quoted or closers:
        missing = '"' if quoted else closers[0]
        raise error("FORGE-P002", f"pipeline ends where {missing} was expected: {pipeline[start:].strip()}")
    elements.append(pipeline[start:].strip())
    if "" in elements:
        raise error("FORGE-P002", f"pipeline has an empty element: {pipeline}", help="remove the extra comma")
    return elements


def _parse_element(element: str, known: Mapping[str, PassFactory]) -> ModulePass:
    try:
        (spec,) = parse_pipeline(element)
    except ArgSpecParseError as exc:  # derives from BaseException
        raise _bad_text(element, str(exc)) from None
    except ValueError as exc:
        raise _bad_text(element, str(exc)) from None
    if spec.name not in known:
        raise _unknown("pass", spec.name, known)
    pass_class = known[spec.name]()
    try:
        return pass_class.from_pass_spec(_with_floats(pass_class, spec))
    except Exception as exc:
        raise _bad_options(pass_class, spec, exc) from exc


def _with_floats(pass_class: type[ModulePass], spec: ArgSpec) -> ArgSpec:
    """The options with integers as floats where an option takes floats only: ``limit=10`` for ``limit=10.0``."""
    kinds = get_type_hints(pass_class)
    parameters = dict(spec.parameters)
    for name, values in parameters.items():
        taken = _base_types(kinds.get(name.replace("-", "_")))
        if float in taken and int not in taken:
            parameters[name] = tuple(float(value) if type(value) is int else value for value in values)
    return replace(spec, parameters=parameters)


def _base_types(kind: Any) -> set[Any]:
    """The types that a type is made of: those of ``tuple[float, ...] | None`` are float and None's."""
    inner = get_args(kind)
    return {kind} if not inner else {base for each in inner for base in _base_types(each)}


def _bad_text(element: str, reason: str) -> ForgeError:
    lines = [line.strip() for line in reason.splitlines() if line.strip(" ^")]
    return error("FORGE-P002", f"cannot parse {element!r}: {_lower_first(lines[-1])}")


def _bad_options(pass_class: type[ModulePass], spec: ArgSpec, reason: Exception) -> ForgeError:
    from xdsl.passes import get_pass_option_infos

    infos = {info.name.replace("_", "-"): info for info in get_pass_option_infos(pass_class)}
    given = [name.replace("_", "-") for name in spec.parameters]
    unknown = [name for name in given if name not in infos]
    notes = tuple(
        f"option {name}: {_plain(info.expected_type)}"
        + (f", {info.default_value} if not given" if info.default_value else "")
        for name, info in infos.items()
    )
    if unknown:
        message = f"pass {spec.name} has no option {', '.join(unknown)}"
        help = _did_you_mean(unknown[0], infos) or (None if infos else f"{spec.name} takes no options")
        return error("FORGE-P002", message, notes=notes, help=help)
    return error("FORGE-P002", f"bad options for pass {spec.name}: {_lower_first(_plain(str(reason)))}", notes=notes)


def _plain(type_text: str) -> str:
    return re.sub(r"<class '([\w.]+)'>", r"\1", type_text).strip("'")


def _unknown(kind: str, name: str, known: Iterable[str]) -> ForgeError:
    help = _did_you_mean(name, known) or "run 'forgec opt --list-passes' to see all passes and presets"
    return error("FORGE-P001", f"there is no {kind} {name}", help=help)


def _did_you_mean(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
