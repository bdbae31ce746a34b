"""Machines as the scheduler sees them: functional units, rates, memories, register grants, and what a hand-over costs.

A machine is a file (``machines/*.toml``, or a user's own); every number in it names its source. This module turns an
amount of work of some kind (so many multiply-adds of bfloat16, so many exponentials) into an ``Op`` with a reservation
table in cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, inf
from pathlib import Path

from forgec.diagnostics import error
from forgec.schedule import files
from forgec.schedule.graph import MOST_BYTES, MOST_CYCLES, STRICT, Op, Use

FOLDER = Path(__file__).parent / "machines"


@dataclass(frozen=True)
class Unit:
    """A functional unit of one multiprocessor. ``capacity``: how much of it there is to be held at once."""

    __pydantic_config__ = STRICT
    capacity: int
    source: str
    title: str = ""


@dataclass(frozen=True)
class Charge:
    """An instruction holds ``amount`` of ``unit``: ``start`` cycles, and one for each ``per_cycle`` items."""

    __pydantic_config__ = STRICT
    unit: str
    per_cycle: Fraction
    start: int = 0
    amount: int = 1


@dataclass(frozen=True)
class Instruction:
    """What a kind of instruction costs.

    ``issue``: cycles of its warps' stream where it runs by itself; None: it is synchronous, and its warps are busy
    for as long as its units are. ``issue_per_cycle``: items that they issue a cycle beside that, where threads issue
    an asynchronous copy piece by piece. ``latency``: cycles from the end of its work until the result may be read.
    ``variable``: an expectation only. ``late``: how much longer than expected it may take, as a part of the expected.
    ``warps``: how many have to carry it out together. ``rows``, ``column_step``, ``most_columns``, ``depth``: the
    shape of one instruction of a matrix product (M, N in steps, N, K). ``accumulator`` and ``left``: the memories
    that may hold the result and the left operand; ``right``: the right operand.
    """

    __pydantic_config__ = STRICT
    charges: tuple[Charge, ...]
    source: str
    issue: int | None = None
    issue_per_cycle: Fraction | None = None
    latency: int = 0
    variable: bool = False
    late: Fraction = Fraction(0)
    warps: int = 1
    rows: int = 0
    column_step: int = 0
    most_columns: int = 0
    depth: int = 0
    accumulator: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ("shared",)

    def operand_bytes(self, rows: int, left: int, right: int, *, across: bool = True) -> int:
        """Bytes of shared memory that a product of ``rows`` reads for operands of ``left`` and ``right`` bytes.

        An instruction reads the right one once for all of its rows. Where operands have to be in registers, each warp
        reads what its own part of the result needs: all columns, or a share of them if the warps of the product may
        divide its columns (``across``) as well as its rows; they are divided for the least.
        """
        if "shared" in self.right:
            return left + right * -(-rows // (self.rows or rows))
        splits = [
            down for down in range(1, self.warps + 1) if self.warps % down == 0 and (across or down == self.warps)
        ]
        return min(left * (self.warps // down) + right * down for down in splits)


@dataclass(frozen=True)
class Registers:
    """The register file of a multiprocessor, in registers of 4 bytes.

    A thread is granted a multiple of ``granularity`` from ``least`` to ``most``, ``reserve`` of which hold addresses
    and counters. Grants are made to ``group_warps`` warps at once: a group of fewer takes as many. ``uniform``: all
    threads of a kernel have the same grant.
    """

    __pydantic_config__ = STRICT
    total: int
    granularity: int
    least: int
    most: int
    reserve: int
    group_warps: int
    source: str
    uniform: bool = False


@dataclass(frozen=True)
class Handover:
    """What passing a value from one group to another costs.

    ``put`` and ``get``: cycles of the streams of the giving and of the taking group. ``latency``: cycles between the
    result and its reader's start on the other side, and between a release and the next write to the same buffer.
    ``bytes_per_cycle``: what is in registers goes through shared memory at that rate, twice.
    """

    __pydantic_config__ = STRICT
    put: int
    get: int
    latency: int
    bytes_per_cycle: int
    source: str


@dataclass(frozen=True)
class Machine:
    """One multiprocessor, and how many of them there are.

    ``isolate`` says which ops are kept apart, so that none waits in line behind something of unknown duration:
    ``none``; ``loads``: ops of variable latency have groups of their own; ``waits``: ops that read what these bring,
    too, unless values in registers tie them to others.
    """

    __pydantic_config__ = STRICT
    name: str
    title: str
    units: Mapping[str, Unit]
    instructions: Mapping[str, Instruction]
    registers: Registers
    handover: Handover
    shared_bytes: int
    most_warps: int
    multiprocessors: int
    clock_ghz: float
    cache_bytes: int
    memory_bytes_per_cycle: float
    sources: Mapping[str, str] = field(default_factory=dict)
    tensor_bytes: int = 0
    isolate: str = "waits"
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.isolate not in ("none", "loads", "waits"):
            raise error("FORGE-U010", f"isolate of machine {self.name} is {self.isolate}; it may be none, loads, waits")
        positive = {
            "round_to": self.round_to,
            "multiprocessors": self.multiprocessors,
            "most_warps": self.most_warps,
            "registers.granularity": self.registers.granularity,
            "registers.group_warps": self.registers.group_warps,
            "handover.bytes_per_cycle": self.handover.bytes_per_cycle,
            **{f"units.{name}.capacity": unit.capacity for name, unit in self.units.items()},
        }
        for field_name, number in positive.items():
            if number < 1:
                raise error("FORGE-U010", f"{field_name} of machine {self.name} is {number}; it is 1 at the least")
        natural = {
            "shared_bytes": self.shared_bytes,
            "tensor_bytes": self.tensor_bytes,
            "registers.total": self.registers.total,
            "registers.least": self.registers.least,
            "registers.reserve": self.registers.reserve,
            "handover.put": self.handover.put,
            "handover.get": self.handover.get,
            "handover.latency": self.handover.latency,
            **{f"instructions.{kind}.latency": each.latency for kind, each in self.instructions.items()},
            **{f"instructions.{kind}.issue": each.issue or 0 for kind, each in self.instructions.items()},
        }
        for field_name, number in natural.items():
            if number < 0:
                raise error("FORGE-U010", f"{field_name} of machine {self.name} is negative: {number}")
        for kind, instruction in self.instructions.items():
            for charge in instruction.charges:
                unit = self.units.get(charge.unit)
                if unit is None:
                    raise error(
                        "FORGE-U010", f"{kind} of machine {self.name} uses the unit {charge.unit}, which it has not"
                    )
                if charge.per_cycle <= 0:
                    rate = f"{charge.per_cycle} items of {charge.unit} a cycle"
                    raise error("FORGE-U010", f"{kind} of machine {self.name} does {rate}")
                if not 0 < charge.amount <= unit.capacity:
                    raise error(
                        "FORGE-U010", f"{kind} of machine {self.name} takes more of {charge.unit} than there is"
                    )
        facts = self.registers
        if -(-facts.least // facts.granularity) > facts.most // facts.granularity:
            raise error(
                "FORGE-U010",
                f"machine {self.name} can grant no registers: there is no multiple of {facts.granularity} from "
                f"{facts.least} to {facts.most}",
            )
        sizes = {**positive, **natural, "registers.most": facts.most, "cache_bytes": self.cache_bytes}
        for field_name, number in sizes.items():
            most = MOST_BYTES if field_name.endswith("_bytes") else MOST_CYCLES
            if number > most:
                raise error("FORGE-U010", f"{field_name} of machine {self.name} is {number}, beyond {most}")
        for field_name, rate in (
            ("clock_ghz", self.clock_ghz),
            ("memory_bytes_per_cycle", self.memory_bytes_per_cycle),
        ):
            if not 0 < rate < inf:
                raise error("FORGE-U010", f"{field_name} of machine {self.name} is {rate:g}")

    def memory_bytes(self, memory: str) -> int:
        """The bytes of shared or tensor memory that a program may have."""
        return {"shared": self.shared_bytes, "tensor": self.tensor_bytes}[memory]

    def rounded(self, cycles: Fraction | int) -> int:
        """Cycles, rounded up to what the machine's numbers are good for."""
        return ceil(Fraction(cycles) / self.round_to) * self.round_to

    def instruction(self, kind: str) -> Instruction:
        """The instruction of a kind.

        Raises:
            ForgeError: FORGE-U010, where the machine has none.
        """
        if kind not in self.instructions:
            raise error(
                "FORGE-U010",
                f"machine {self.name} has no instruction {kind}",
                notes=("it has " + ", ".join(sorted(self.instructions)),),
            )
        return self.instructions[kind]

    def op(
        self,
        name: str,
        work: Mapping[str, int],
        *,
        part: int | None = None,
        twin: str | None = None,
        role: str = "",
        shape: tuple[int, ...] = (),
        source: str | None = None,
    ) -> Op:
        """An op that carries out ``work``: items of each kind of instruction, interleaved if there are several kinds.

        Its units are held from its start on for as long as each has to; the warps' stream, where an instruction is
        synchronous, for as long as the longest of them.
        """
        # Of each unit: cycles times amount, and the largest amount. Interleaved, they are as much of the largest.
        held: dict[str, tuple[Fraction, int]] = {}
        issue, synchronous, late = Fraction(0), Fraction(0), Fraction(0)
        latency, variable, warps = 0, False, 1
        for kind, items in work.items():
            instruction = self.instruction(kind)
            longest = Fraction(0)
            for charge in instruction.charges:
                cycles = charge.start + Fraction(items) / charge.per_cycle
                before, amount = held.get(charge.unit, (Fraction(0), 0))
                held[charge.unit] = (before + cycles * charge.amount, max(amount, charge.amount))
                longest = max(longest, cycles)
            if instruction.issue is None:
                synchronous += longest
            issue += instruction.issue or 0
            if instruction.issue_per_cycle:
                issue += Fraction(items) / instruction.issue_per_cycle
            latency = max(latency, instruction.latency)
            variable = variable or instruction.variable
            late = max(late, instruction.late)
            warps = max(warps, instruction.warps)
        times = {unit: (area / amount, amount) for unit, (area, amount) in held.items()}
        longest = max((cycles for cycles, _ in times.values()), default=Fraction(0))
        if synchronous:
            # Instructions of several kinds overlap, but for what one unit has to do for all of them.
            issue = max(issue, longest)
        return Op(
            name=name,
            kind="+".join(work),
            issue=self.rounded(issue),
            latency=self.rounded(longest + latency),
            uses=tuple(Use(unit, self.rounded(cycles), amount=amount) for unit, (cycles, amount) in times.items()),
            late=self.rounded(late * (longest + latency)),
            variable=variable,
            warps=warps,
            part=part,
            twin=twin,
            role=role,
            shape=shape,
            source=source,
        )


def named(name: str) -> Machine:
    """A machine of forgec's own by its architecture (``sm_90a``), or one from a file.

    Raises:
        ForgeError: FORGE-U003 where there is none of that name, FORGE-U010 where the file holds none.
    """
    path = Path(name)
    if path.suffix in (".toml", ".json"):
        return files.read(Machine, path)
    own = FOLDER / f"{name.removeprefix('cuda:')}.toml"
    if not own.is_file():
        names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
        raise error(
            "FORGE-U003",
            f"there is no machine {name or 'without a name'}; there are {names}, and files in TOML or JSON",
        )
    return files.read(Machine, own)


def without_words(machine: Machine) -> Machine:
    """A machine without what it says of its sources: better words for a number are no other number."""
    return replace(
        machine,
        title="",
        sources={},
        units={name: replace(unit, source="", title="") for name, unit in machine.units.items()},
        instructions={name: replace(each, source="") for name, each in machine.instructions.items()},
        registers=replace(machine.registers, source=""),
        handover=replace(machine.handover, source=""),
    )
