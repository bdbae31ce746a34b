"""Writing an artifact: streamed into a file without a name, hashed on the way, named when complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from forgec.diagnostics import error
from forgec.runtime import kernel_table as kernel_tables
from forgec.runtime import manifest as manifests
from forgec.runtime import plan as plans
from forgec.runtime.kernel_table import KERNEL_TABLE, NativeCode, member_of, padded
from forgec.runtime.kernels import check_launches
from forgec.runtime.manifest import MANIFEST, PLAN, REPORT, WEIGHTS, MemberRecord, WeightsRecord
from forgec.runtime.plan import Param, Plan, State, TensorSpec
from forgec.runtime.replacing_file import ReplacingFile
from forgec.runtime.safetensors_layout import StoredTensor, lay_out
from forgec.runtime.strict_json import print_json
from forgec.runtime.tensor_bytes import TensorLike, bytes_in_file_order, identity
from forgec.runtime.zip_writer import ZipWriter

Source: TypeAlias = "TensorLike | Callable[[], TensorLike]"
"""A torch tensor, a numpy array or the bytes in file order; or a function that returns one, called when it is
written."""

CHUNK_BYTES = 1 << 22


def write_artifact(
    path: str | os.PathLike[str],
    plan: Plan,
    weights: Mapping[str, Source],
    *,
    aliases: Mapping[str, str] | None = None,
    producer: Mapping[str, str] | None = None,
    target: str = "cpu:aten",
    pipeline: str = "",
    report: Mapping[str, Any] | None = None,
    ir: Mapping[str, str] | None = None,
    external_weights: str | os.PathLike[str] | None = None,
    kernels: NativeCode | Sequence[NativeCode] | None = None,
    precision: str = "float32",
) -> None:
    """Writes the artifact, or leaves everything as it was.

    Of ``weights`` only what the plan reads is written, each tensor once: ``aliases`` maps names to others with the same
    tensor, and names whose sources are one object or the same torch memory are found by themselves. ``ir`` maps a level
    to its text. ``external_weights`` names a file in the artifact's folder for the weights. ``kernels`` is the machine
    code of the kernels that the plan launches: an image, or one for each instruction set, all of the same kernels;
    ``precision`` what their products of float32 round to. The bytes are a function of the arguments. FORGE-U004 when
    the file cannot be written, FORGE-U005 for a wrong place of the weights, FORGE-X001 when a weight is missing or
    images differ, FORGE-A004 when the plan launches a kernel that is missing or takes other arguments.
    """
    path = Path(path)
    outside = None if external_weights is None else Path(external_weights)
    if outside is not None and (outside.resolve().parent != path.resolve().parent or outside.name == path.name):
        raise error("FORGE-U005", f"external weights '{outside}' are not beside '{path}'")
    images = (kernels,) if isinstance(kernels, NativeCode) else tuple(kernels or ())
    for table in [image.table for image in images] or [None]:
        check_launches(plan, table)
    tables = _tables(images)
    aliases = aliases or {}
    wanted, tied = _select(plan, weights, aliases)
    with ExitStack() as files:
        # Entered first, renamed last: an artifact never stands beside weights of another compilation.
        archive = ZipWriter(files.enter_context(ReplacingFile(path)))
        records: dict[str, MemberRecord] = {}
        for level, text in sorted((ir or {}).items()):
            records[f"ir/{level}.mlir"] = archive.deflated(f"ir/{level}.mlir", text.encode())
        records[PLAN] = archive.stored(PLAN, print_json(plans.to_json(plan)))
        records[REPORT] = archive.stored(REPORT, print_json(dict(report or {})))
        if images:
            records[KERNEL_TABLE] = archive.stored(KERNEL_TABLE, print_json(tables))
        for image in images:
            name = member_of(image.table)
            records[name] = archive.stored(name, padded(bytes(image.code)))
        header, placed, data_bytes = lay_out([(name, spec) for name, spec in wanted.items()])
        if outside is None:
            archive.begin(WEIGHTS, len(header) + data_bytes)
            digest = _write_weights(archive.write, header, placed, wanted, weights, aliases)
            archive.finish()
        else:
            file = files.enter_context(ReplacingFile(outside))
            digest = _write_weights(file.write, header, placed, wanted, weights, aliases)
        stored = WeightsRecord(
            nbytes=len(header) + data_bytes,
            sha256=digest,
            header_sha256=hashlib.sha256(header).hexdigest(),
            file=None if outside is None else outside.name,
            aliases=tied,
        )
        described = manifests.build(
            plan, records, stored, producer=producer or {}, target=target, pipeline=pipeline, precision=precision
        )
        archive.stored(MANIFEST, print_json(described))
        archive.close()


def _tables(images: Sequence[NativeCode]) -> dict[str, Any]:
    try:
        return kernel_tables.to_json([image.table for image in images]) if images else {}
    except ValueError as reason:
        raise error("FORGE-X001", str(reason)) from None


def _select(
    plan: Plan, weights: Mapping[str, Source], aliases: Mapping[str, str]
) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    """What to store, by name in the plan's order, and the aliases of it that the plan reads."""
    wanted: dict[str, TensorSpec] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[object, TensorSpec], str] = {}
    for entry in plan.entries:
        for register in entry.registers:
            if not isinstance(register, (Param, State)) or (isinstance(register, State) and register.zeros):
                continue
            name = register.name
            if name in wanted or name in tied:
                continue
            target = aliases.get(name, name)
            source = weights.get(target)
            if source is None:
                raise error("FORGE-X001", f"the plan reads '{name}', but there is no such weight")
            stored = seen.setdefault((identity(source), register.spec), name)
            if stored == name:
                wanted[name] = register.spec
            else:
                tied[name] = stored
    return wanted, tied


def _write_weights(
    write: Callable[[bytes | memoryview], None],
    header: bytes,
    placed: Mapping[str, StoredTensor],
    wanted: Mapping[str, TensorSpec],
    weights: Mapping[str, Source],
    aliases: Mapping[str, str],
) -> str:
    """Streams the safetensors file, one tensor in memory at a time; returns the SHA-256 of all of it."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=1) as hasher:  # hashing takes as long as summing and writing together

        def emit(content: bytes | memoryview) -> None:
            for start in range(0, len(content), CHUNK_BYTES):  # small enough to be read once from memory
                chunk = content[start : start + CHUNK_BYTES]
                hashed = hasher.submit(digest.update, chunk)
                write(chunk)
                hashed.result()

        emit(header)
        position = 0
        for name, spec in wanted.items():
            source = weights[aliases.get(name, name)]
            value: TensorLike = source() if callable(source) else source
            emit(bytes(placed[name].begin - position))
            emit(bytes_in_file_order(name, value, spec))
            position = placed[name].end
    return digest.hexdigest()
