"""A graph before its parts are written out: ops and values that are there once for each part, or once for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from xdsl.ir import Operation, SSAValue

from forgec.schedule.graph import Dependence, Op, Read, Value


@dataclass
class DraftOp:
    """An op of one part. ``apart``: each part has one of its own."""

    op: Op
    apart: bool
    nodes: tuple[Operation, ...] = ()

    def name(self, part: int | None) -> str:
        """What the op is called in a part."""
        return f"{self.op.name}.{part}" if self.apart else self.op.name


@dataclass
class DraftRead:
    """A read: by whom, with which release and distance."""

    reader: DraftOp
    release: int
    distance: int = 0


@dataclass
class DraftValue:
    """What an op leaves in a memory. ``kernel_value``: the value of the kernel that it holds."""

    name: str
    producer: DraftOp
    memory: str
    size: int
    kernel_value: SSAValue | None = None
    reads: list[DraftRead] = field(default_factory=list)
    begin: int = 0
    crossing: bool = False

    def add(self, reader: DraftOp, release: int, distance: int = 0) -> None:
        """One more reader; of two reads by one op at one distance the later release counts."""
        for read in self.reads:
            if read.reader is reader and read.distance == distance:
                read.release = max(read.release, release)
                return
        self.reads.append(DraftRead(reader, release, distance))


@dataclass
class DraftDependence:
    """An order of two ops without a value."""

    source: DraftOp
    target: DraftOp
    delay: int
    distance: int


def _parts(apart: bool, parts: int) -> Sequence[int | None]:
    return range(parts) if apart else (None,)


def op_in_parts(draft: DraftOp, parts: int) -> Iterator[Op]:
    """The op of each part."""
    for part in _parts(draft.apart, parts):
        if part is None:
            yield draft.op
        else:
            yield replace(draft.op, name=draft.name(part), part=part, twin=draft.op.name)


def value_in_parts(draft: DraftValue, parts: int) -> Iterator[Value]:
    """The value of each part; a value that is there once is read by the readers of all parts."""
    for part in _parts(draft.producer.apart, parts):
        reads: list[Read] = []
        for read in draft.reads:
            for other in [part] if part is not None else _parts(read.reader.apart, parts):
                reads.append(Read(read.reader.name(other), read.release, read.distance))
        name = draft.name if part is None else f"{draft.name}.{part}"
        yield Value(
            name, draft.producer.name(part), draft.memory, draft.size, tuple(reads), draft.begin, draft.crossing
        )


def dependences_in_parts(drafts: Iterable[DraftDependence], parts: int) -> Iterator[Dependence]:
    """The dependence of each part; between one that is there once and the others, for all of them."""
    for draft in drafts:
        for source in _parts(draft.source.apart, parts):
            for target in _parts(draft.target.apart, parts):
                if source is None or target is None or source == target:
                    yield Dependence(draft.source.name(source), draft.target.name(target), draft.delay, draft.distance)
