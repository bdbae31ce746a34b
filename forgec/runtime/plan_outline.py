"""What can be told of a plan without decoding it: what of torch it needs. For those who have no time to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWN = ("kernel::", "forge::")
"""How operations begin that are not torch's: kernels, and what calls entries."""
COPY = "aten::copy_"
"""Runs without torch where it copies elements as they are and nobody takes its result."""


@dataclass(frozen=True, slots=True)
class Outline:
    """``operations`` are those of torch that the plan calls, ``devices`` where its tensors are; ``torch_version`` is
    the version that it was made with."""

    operations: tuple[str, ...]
    devices: tuple[str, ...]
    torch_version: str

    @property
    def needs_torch(self) -> bool:
        """Whether the plan runs only with torch."""
        return bool(self.operations) or self.devices not in ((), ("cpu",))


def outline(data: Any) -> Outline:
    """The outline of a plan's JSON. ``LookupError`` or ``TypeError`` when it has not the form of a plan."""
    entries = data["entries"]
    called = {str(launch["op"]) for entry in entries for launch in entry["launches"] if _is_torchs(launch, entry)}
    devices = {str(register.get("device", "cpu")) for entry in entries for register in entry["registers"]}
    return Outline(tuple(sorted(called)), tuple(sorted(devices)), str(data["torch_version"]))


def _is_torchs(launch: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    return not launch["op"].startswith(OWN) and not (launch["op"] == COPY and _is_plain_copy(launch, entry))


def _is_plain_copy(launch: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    if launch.get("kwargs") or any(result is not None for result in launch.get("results", ())):
        return False
    registers = [entry["registers"][arg["reg"]] for arg in launch["args"] if isinstance(arg, dict) and "reg" in arg]
    return len(registers) == len(launch["args"]) == 2 and registers[0]["dtype"] == registers[1]["dtype"]
