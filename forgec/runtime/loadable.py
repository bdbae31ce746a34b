"""Whether an artifact would load, here or on a machine that is described, and why not: without loading it.

Nothing is imported that takes long: no torch, no numpy, nothing of the compiler; not even the plan is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.runtime import processor
from forgec.runtime.artifact import open_artifact
from forgec.runtime.kernel_table import NativeCode
from forgec.runtime.processor import Machine


@dataclass(frozen=True, slots=True)
class Image:
    """An image of machine code; ``reason`` is why the machine cannot run it, None if it can."""

    name: str
    nbytes: int
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible data."""
        return {"name": self.name, "bytes": self.nbytes, "runs": self.reason is None, "reason": self.reason}


@dataclass
class Loadable:
    """What was found. ``chosen`` is the name of the image that would be mapped, None if none is; ``operations`` are
    those of torch that the plan calls, ``devices`` where its tensors are, ``torch_version`` the version that it was
    made with. ``problems`` are why it does not load (none: it does)."""

    path: str
    machine: str
    target: str = ""
    images: list[Image] = field(default_factory=list)
    chosen: str | None = None
    operations: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    torch_version: str = ""
    problems: list[Diagnostic] = field(default_factory=list)

    @property
    def loads(self) -> bool:
        """True if nothing stands in the way."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible data."""
        return {
            "artifact": self.path,
            "loads": self.loads,
            "machine": self.machine,
            "target": self.target,
            "images": [image.to_dict() for image in self.images],
            "chosen": self.chosen,
            "operations": list(self.operations),
            "devices": list(self.devices),
            "torch_version": self.torch_version,
            "problems": [problem.to_dict() for problem in self.problems],
        }


def loadable(
    path: str | os.PathLike[str],
    *,
    machine: Machine | None = None,
    full: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> Loadable:
    """Looks at an artifact as ``load`` would: its layout, the hash of every member but the weights, the images of
    machine code, and whether torch is there if the plan calls it.

    ``machine`` is another one than this; whether it has torch, and lets code be mapped, is then left open. ``full``
    also hashes the weights and decodes the plan. FORGE-U001 when the file cannot be read.
    """
    found = Loadable(os.fspath(path), "this machine" if machine is None else machine.called)
    try:
        artifact = open_artifact(path, verify="full" if full else "fast", weights=weights)
        found.target = str(artifact.manifest.get("target", ""))
        images = artifact.images
        plan = artifact.outline
        if full:
            _ = artifact.plan
    except ForgeError as reason:
        if reason.code.startswith("FORGE-U"):
            raise
        found.problems += reason.diagnostics
        return found
    found.operations, found.devices, found.torch_version = plan.operations, plan.devices, plan.torch_version
    _look_at_images(found, images, machine)
    if machine is None and plan.needs_torch and not _is_installed("torch"):
        found.problems += _torch_is_missing(found).diagnostics
    return found


def _look_at_images(found: Loadable, images: Sequence[NativeCode], machine: Machine | None) -> None:
    seen = processor.host() if machine is None else machine
    for image in images:
        reason = processor.refusal(image.table.isa, image.table.features, seen)
        found.images.append(Image(image.table.image, len(image.code), reason))
    try:
        chosen = processor.best(images, seen)
        if chosen is not None:
            found.chosen = chosen.table.image
            if machine is None:
                from forgec.runtime.code_image import CodeImage

                CodeImage(chosen)
    except ForgeError as reason:
        found.problems += reason.diagnostics


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _torch_is_missing(found: Loadable) -> ForgeError:
    count = len(found.operations)
    what = f"calls {count} ATen operation{'s' * (count != 1)}" if count else f"needs {', '.join(found.devices)}"
    return error(
        "FORGE-A006",
        f"the plan {what}, and torch is not installed",
        notes=(", ".join(found.operations[:8]) + (", …" if count > 8 else ""),) if count else (),
        help=f"install torch {found.torch_version} or newer",
    )
