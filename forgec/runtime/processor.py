"""What the processor can do, and what a kernel image asks of it.

The levels of x86-64 are those of the psABI (x86-64 System V ABI, chapter "Micro-Architecture Levels"); features have
LLVM's names, and Linux lists them as flags in ``/proc/cpuinfo``, some under other names. A flag is only there when the
kernel of the system also saves the registers that it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forgec.diagnostics import ForgeError, error

if TYPE_CHECKING:
    from forgec.runtime.kernel_table import NativeCode

CPUINFO = Path("/proc/cpuinfo")

_BASE = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_BASE, "cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS: dict[str, tuple[str, ...]] = {"x86-64": _BASE, "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}

_OTHER_NAMES = {
    "sahf": "lahf_lm",
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "avxvnni": "avx_vnni",
    "avxvnniint8": "avx_vnni_int8",
    "avxneconvert": "avx_ne_convert",
    "avxifma": "avx_ifma",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512vp2intersect": "avx512_vp2intersect",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
    "amx-int8": "amx_int8",
    "amx-fp16": "amx_fp16",
    "pclmul": "pclmulqdq",
    "rdrnd": "rdrand",
    "sha": "sha_ni",
    "prfchw": "3dnowprefetch",
    "crc32": "sse4_2",
    "64bit": "lm",
}
"""LLVM's name of a feature → Linux' name of its flag; the other names are the same."""

_KNOWN = frozenset({*_OTHER_NAMES, *_OTHER_NAMES.values(), *_V4})

_SYSTEM = frozenset(
    {"64bit", "clflushopt", "clwb", "clzero", "fsgsbase", "invpcid", "mwaitx", "pku", "rdpid", "rdpru", "rdrnd"}
    | {"rdseed", "shstk", "wbnoinvd", "xsave", "xsavec", "xsaveopt", "xsaves"}
)
"""Instructions that no kernel has: LLVM uses them where they are asked for by name."""


def requirements(features: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """What the table of an image says of code that LLVM may have used these features for: the highest level of x86-64
    that they contain, and the others."""
    given = {*features}
    isa, level = max(
        ((isa, level) for isa, level in LEVELS.items() if {*level} <= given | _SYSTEM | {*_BASE}),
        key=lambda pair: len(pair[1]),
    )
    return isa, tuple(sorted(given - {*level} - _SYSTEM))


def flags_of(text: str) -> frozenset[str] | None:
    """The flags of the first processor in a ``/proc/cpuinfo``; None when it lists none."""
    for line in text.splitlines():
        name, colon, flags = line.partition(":")
        if colon and name.strip() == "flags":
            return frozenset(flags.split())
    return None


def missing_features(isa: str, features: Iterable[str], flags: frozenset[str]) -> list[str] | None:
    """What a processor with these flags lacks of an instruction set and further features, by LLVM's names; None for an
    instruction set that is not known."""
    level = LEVELS.get(isa)
    if level is None:
        return None
    return [name for name in dict.fromkeys((*level, *features)) if _OTHER_NAMES.get(name, name) not in flags]


def host_flags() -> frozenset[str] | None:
    """The flags of this machine's processor; None when ``CPUINFO`` lists none. ``OSError`` when it cannot be read."""
    with CPUINFO.open(errors="replace") as file:  # one processor's part: some systems list hundreds
        return next((found for line in file if (found := flags_of(line)) is not None), None)


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters of a machine: the operating system (``sys.platform``), the kind of processor (``uname -m``), and the
    processor's flags; where those are not known, ``unknown`` says why. ``called`` is how messages speak of it."""

    flags: frozenset[str] | None
    system: str = "linux"
    kind: str = "x86_64"
    unknown: str = ""
    called: str = "this processor"


def host() -> Machine:
    """This machine."""
    flags, unknown = None, f"{CPUINFO} does not tell what this processor has"
    try:
        flags = host_flags()
    except OSError as reason:
        unknown = f"{CPUINFO} cannot be read: {reason.strerror}"
    return Machine(flags, sys.platform, os.uname().machine if hasattr(os, "uname") else "", unknown)


def described(text: str) -> Machine:
    """The machine that a text describes: a level of x86-64 (``x86-64-v3``), features by LLVM's or Linux' names, a level
    among them (``x86-64-v3,avx512bf16``), or the path of a saved ``/proc/cpuinfo``.

    FORGE-U001 when the file cannot be read, FORGE-U005 when the text is none of these.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if os.sep not in text and names and not Path(text).is_file():
        return _with_features(names, text)
    try:
        content = Path(text).read_text(errors="replace")
    except OSError as reason:
        raise error("FORGE-U001", f"'{text}' cannot be read: {(reason.strerror or str(reason)).lower()}") from None
    flags = flags_of(content)
    kind = "x86_64" if flags is not None or "Features" not in content else "aarch64"  # as Linux lists them for Arm
    return Machine(flags, kind=kind, unknown=f"'{text}' does not tell what the processor has", called="that processor")


def _with_features(names: Sequence[str], text: str) -> Machine:
    flags: set[str] = set()
    for name in names:
        if name in LEVELS:
            flags.update(_OTHER_NAMES.get(feature, feature) for feature in LEVELS[name])
        elif name in _KNOWN:
            flags.add(_OTHER_NAMES.get(name, name))
        else:
            raise error(
                "FORGE-U005",
                f"'{name}' is no level of x86-64, no feature and no file",
                notes=(f"levels: {', '.join(LEVELS)}", f"features: {', '.join(sorted({*_OTHER_NAMES, *_V4}))}"),
            )
    return Machine(frozenset(flags), called=f"a processor with {text}")


def refusal(isa: str, features: Iterable[str], machine: Machine) -> str | None:
    """Why a machine cannot run code for an instruction set and further features; None when it can."""
    if machine.system != "linux":
        return f"this is a machine with {machine.system}, not Linux"
    if machine.kind not in ("x86_64", "AMD64"):
        return f"this is a machine of type {machine.kind or 'unknown'}"
    if machine.flags is None:
        return machine.unknown
    lacking = missing_features(isa, features, machine.flags)
    if lacking is None:
        return "this runtime does not know it"
    return f"{machine.called} lacks {', '.join(lacking)}" if lacking else None


def require(isa: str, features: Iterable[str], machine: Machine | None = None) -> None:
    """FORGE-A007, naming what is missing, unless the machine (this one) runs code for the instruction set."""
    reason = refusal(isa, features, host() if machine is None else machine)
    if reason is not None:
        raise _refused([isa], reason)


def best(images: Sequence[NativeCode], machine: Machine | None = None) -> NativeCode | None:
    """The image that uses most of what the machine (this one) has; None when there are no images.

    FORGE-A007, with the reason for each, when the machine runs none of them.
    """
    if not images:
        return None
    machine = host() if machine is None else machine
    reasons = [(image.table, refusal(image.table.isa, image.table.features, machine)) for image in images]
    fitting = [image for image, (_, reason) in zip(images, reasons, strict=True) if reason is None]
    if fitting:
        return max(fitting, key=lambda image: _demands(image.table.isa, image.table.features))
    least, reason = min(reasons, key=lambda pair: _demands(pair[0].isa, pair[0].features))
    others = [f"{table.image}: {why}" for table, why in reasons if table is not least and why != reason]
    raise _refused([least.isa] if len(images) == 1 else [table.image for table, _ in reasons], str(reason), others)


def _demands(isa: str, features: Sequence[str]) -> int:
    return len({*LEVELS.get(isa, ()), *features})


def _refused(names: Sequence[str], reason: str, others: Sequence[str] = ()) -> ForgeError:
    return error(
        "FORGE-A007",
        f"the kernels were compiled for {' and '.join(names)}, and {reason}",
        notes=tuple(others),
        help="compile for this machine, for an older instruction set, or for cpu:aten, which calls torch",
    )
