"""A reduced miscompilation as one ``.mlir`` file that shows the difference by itself."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from forgec.diagnostics import error
from forgec.ir.params import ParamValues
from forgec.passes import ir_source
from forgec.passes.instruments import ir_text
from forgec.passes.ir_source import Piece
from forgec.runtime.replacing_file import ReplacingFile
from forgec.verify.calls import entry_function
from forgec.verify.evaluation import Data, Step, differences
from forgec.verify.random_data import random_data
from forgec.verify.reduction import Reduced
from forgec.verify.slices import NAME, argument_names, data_of, parameters
from forgec.verify.tolerance import Tolerance

SEEDS = range(3)
"""Seeds of random inputs that are tried before the values that were recorded are written beside the file."""


@dataclass(frozen=True)
class Reproducer:
    """The file, and how it shows the difference: ``command`` runs it. ``data`` are inputs, where random ones do not."""

    path: Path
    command: str
    data: Path | None = None


def write_reproducer(
    folder: Path,
    source: ModuleOp,
    step: Step,
    found: Reduced,
    values: Mapping[SSAValue, Any],
    params: Mapping[str, Any],
    symbols: Mapping[str, int],
    tolerance: Tolerance,
    *,
    code: str,
    headline: str,
) -> Reproducer | None:
    """Write the slice with the command that runs the step on it. None if text cannot say what the slice does.

    Raises FORGE-U004 where the folder cannot be written.
    """
    part = found.part
    text = ir_text(part.module(source), locations=True)
    fails = found.output is None
    recorded = _named(part, source, values, params)
    seed = next((s for s in SEEDS if _differs(text, step, tolerance, fails, s, {})), None)
    if seed is None and not _differs(text, step, tolerance, fails, 0, recorded, symbols):
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = "runtime" if step.at_run_time else step.name
    path, data = folder / f"{name}-{digest}.mlir", folder / f"{name}-{digest}.safetensors"
    options = "" if seed == 0 else f" --seed {seed}" if seed is not None else f" --data {data.name}"
    command = f"forgec bisect {path.name} -p {shlex.quote(step.pipeline)}{options}"
    header = f"// RUN: forgec opt %s -p {shlex.quote(step.pipeline)}\n// {code}: {headline}\n// {command}\n"
    _write(path, (header + text).encode())
    if seed is None:
        _write(data, _packed(recorded, symbols))
    return Reproducer(path, command, data if seed is None else None)


def read_data(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Tensors by name, and the values of symbols, of a file beside a reproducer. Raises FORGE-U001."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            symbols = {name: int(value) for name, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, symbols  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError) as reason:
        raise error("FORGE-U001", f"cannot read {path}: {reason}") from None


def _differs(
    text: str,
    step: Step,
    tolerance: Tolerance,
    fails: bool,
    seed: int,
    given: Mapping[str, Any],
    symbols: Mapping[str, int] | None = None,
) -> bool:
    """True if the text, parsed, shows the difference (or the failure) on these inputs."""
    module = ir_source.parse(Piece("reproducer", text, 1), ir_source.context()).module
    try:
        data = random_data(module, entry_function(module, NAME), seed, given)
        data = Data(data.inputs, data.params, {**data.symbols, **(symbols or {})})
        expected = step.before(module, data, NAME, float64=False)
    except Exception:  # whatever other data makes the program itself raise: such data shows nothing
        return False
    try:
        found = step.after(module, data, NAME, float64=False)
    except Exception:  # a wrong pass, or what runs its result, may raise anything
        return fails
    return not fails and bool(differences(expected, found, tolerance))


def _named(part: Any, source: ModuleOp, values: Mapping[SSAValue, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    tensors = dict(zip(argument_names(part), data_of(part, values), strict=True))
    known = ParamValues(source, params)
    return {**tensors, **{f"@{op.sym_name.data}": known[op.sym_name.data] for op in parameters(part.module(source))}}


def _packed(tensors: Mapping[str, Any], symbols: Mapping[str, int]) -> bytes:
    from safetensors.torch import save

    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    return save(plain, {name: str(value) for name, value in symbols.items()})


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ReplacingFile(path) as file:
            file.write(content)
    except OSError as reason:
        raise error("FORGE-U004", f"cannot write {path}: {(reason.strerror or str(reason)).lower()}") from reason
