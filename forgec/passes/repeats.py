"""Finding what a block of ops computes again and again: the same dataflow, on other operands.

Ops get a code: equal codes mean equal kinds, attributes (all scalars among them), types and regions. A **span** is a
contiguous run of ops. Two spans are the same when their codes are, op by op, and when each operand is the result of
the same op of the span, or the same one of the span's inputs: that is all that decides. Where spans begin and end is
proposed in two ways: by the numbers in module paths (``layers.3``), and for the rest by a suffix array over the codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, takewhile

from xdsl.ir import SSAValue
from xdsl.traits import is_side_effect_free

from forgec.ir.attributes import StateType
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.contraction import ConvolvingOp, LinearOp, MatmulOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.ops.shape import ViewOp
from forgec.passes.repeated_text import Candidate, candidates_in
from forgec.passes.spans import Group, Instance, Line, Path, Span

PRODUCTS = (LinearOp, MatmulOp, ConvolvingOp, AttentionOp)
"""What a part of a layer must have to be worth a function."""

PROTOTYPES = 4
"""With how many kinds of spans one that is like no other is compared."""


def repeats(line: Line, min_ops: int, *, unnamed: bool) -> Iterator[Group]:
    """The repeated computations of a line: spans of one group, and of several, do not overlap. ``unnamed``: look for
    repetitions also where no module path tells them.
    """
    taken: list[Span] = []
    for group in _named(line, min_ops):
        for part in _refined(line, group, min_ops):
            taken += [instance.span for instance in part.instances]
            yield part
    if unnamed:
        for group in _unnamed(line, 2 * min_ops, taken):
            yield from _refined(line, group, min_ops)


def _refined(line: Line, group: Group, min_ops: int) -> Iterator[Group]:
    for part in _by_indexing(line, group, min_ops):
        yield from _by_tables(line, part)


def _by_indexing(line: Line, group: Group, min_ops: int) -> Iterator[Group]:
    """The instances with what is different about their indexing before them; those without differences for each if
    that cannot be.
    """
    size = len(group.instances[0].ops)
    columns = zip(*([line.exact[position] for position in instance.ops] for instance in group.instances), strict=True)
    before = {index for index, column in enumerate(columns) if len(set(column)) > 1}
    if not before:
        yield group
        return
    ops = group.instances[0].ops
    index = {position: number for number, position in enumerate(ops)}
    for number in reversed(range(size)):
        if number in before:
            places = (line.place.get(value, (-1, 0))[0] for value in line.sources[ops[number]])
            before.update(index[at] for at in places if at in index)
    movable = all(isinstance(line.ops[ops[number]], (ViewOp, ConstantOp)) for number in before)
    if movable and size - len(before) >= min_ops:
        yield Group([_without(line, instance, before) for instance in group.instances], group.differing)
        return
    exact: dict[tuple[int, ...], list[Instance]] = {}
    for instance in group.instances:
        exact.setdefault(tuple(line.exact[position] for position in instance.ops), []).append(instance)
    yield from _parts(group, exact.values(), "it takes other parts of what it computes")


def _without(line: Line, instance: Instance, before: set[int]) -> Instance:
    """An instance with some of its ops, by number, before it."""
    ops = [position for number, position in enumerate(instance.ops) if number not in before]
    moved = [position for number, position in enumerate(instance.ops) if number in before]
    return Instance(instance.span, ops, line.key(ops)[1], sorted([*instance.extra, *moved]), instance.late)


def _by_tables(line: Line, group: Group) -> Iterator[Group]:
    """The instances that take the same masks and tables, for each: passes make different things of them. A table that
    each of several instances has for itself is an input like others.
    """
    tables = [[line.tables.number_of(value) for value in instance.inputs] for instance in group.instances]
    count = len(tables)
    asked = [column for column in zip(*tables, strict=True) if count == 2 or len(set(column)) < count]
    parts: dict[tuple[int | None, ...], list[Instance]] = {}
    for key, instance in zip(zip(*asked, strict=True) if asked else [()] * count, group.instances, strict=True):
        parts.setdefault(key, []).append(instance)
    yield from _parts(group, parts.values(), "it takes other masks or tables of positions")


def _parts(group: Group, parts: Iterable[list[Instance]], reason: str) -> Iterator[Group]:
    """The parts of a group that are several instances; what the others differ in goes with the first of them."""
    alone = [instances[0].span for instances in parts if len(instances) == 1]
    differing = [*group.differing, *((span, reason) for span in alone)]
    for instances in parts:
        if len(instances) > 1:
            yield Group(instances, differing)
            differing = []


# By module paths ------------------------------------------------------------------------------------------------------


def _named(line: Line, min_ops: int) -> Iterator[Group]:
    """Groups of modules with a number in their path, outer modules first: an inner one counts where the outer ones
    are different.
    """
    level, pending = 0, [Span(0, len(line.ops))]
    while pending:
        level += 1
        found = [span for outer in pending for span in _modules(line, outer, level)]
        pending = [span for span in found if len(span) >= min_ops]
        for group in _grouped(line, pending, min_ops):
            yield group
            done = {instance.span for instance in group.instances}
            pending = [span for span in pending if span not in done]


def _modules(line: Line, outer: Span, level: int) -> list[Span]:
    """For each path up to its ``level``-th number, the span of the ops in that module; without overlaps."""
    first: dict[Path, int] = {}
    last: dict[Path, int] = {}
    prefixes: dict[Path, Path | None] = {}
    for position in outer.range:
        path = line.paths[position]
        if path not in prefixes:
            numbers = [i for i, component in enumerate(path) if component.isdecimal()]
            prefixes[path] = path[: numbers[level - 1] + 1] if len(numbers) >= level else None
        prefix = prefixes[path]
        if prefix is not None:
            first.setdefault(prefix, position)
            last[prefix] = position
    spans = sorted((Span(first[path], last[path] + 1, path) for path in first), key=lambda span: span.start)
    alone = []
    end = 0
    for index, span in enumerate(spans):
        following = spans[index + 1].start if index + 1 < len(spans) else span.end
        if end <= span.start and span.end <= following:
            alone.append(span)
        end = max(end, span.end)
    return alone


def _grouped(line: Line, spans: Sequence[Span], min_ops: int) -> list[Group]:
    """The groups among spans; spans that differ by additional ops only join a group."""
    exact: dict[tuple[int, ...], list[Instance]] = {}
    for span in spans:
        key, inputs = line.key(span.range)
        exact.setdefault(key, []).append(Instance(span, span.range, inputs))
    alone = [found[0] for found in exact.values() if len(found) == 1]
    several = sorted((found for found in exact.values() if len(found) > 1), key=lambda i: -len(i) * len(i[0].span))
    candidates = [*several, *([instance] for instance in sorted(alone, key=lambda i: len(i.span)))][:PROTOTYPES]
    differing: dict[int, list[tuple[Span, str]]] = {}
    joined: set[Span] = set()
    for instance in alone:
        for number, group in enumerate(candidates):
            prototype = group[0]
            if prototype.span == instance.span or prototype.span in joined or len(prototype.span) > len(instance.span):
                continue
            match = _align(line, prototype, instance.span)
            if isinstance(match, Instance):
                group.append(match)
                joined.add(instance.span)
                break
            differing.setdefault(number, []).append((instance.span, match))
    groups = []
    for number, group in enumerate(several + candidates[len(several) :]):
        instances = sorted(group, key=lambda instance: instance.span.start)
        enough = len(instances) > 1 and len(group[0].span) >= min_ops and group[0].span not in joined
        if enough and line.is_chain([instance.span for instance in instances]):
            siblings = {instance.span.path[:-1] for instance in instances}
            others = [(s, why) for s, why in differing.get(number, ()) if s.path[:-1] in siblings and s not in joined]
            groups.append(Group(instances, others))
    return groups


def _align(line: Line, prototype: Instance, span: Span) -> Instance | str:
    """The prototype's ops among those of a longer span; else the op at which they part."""
    values: dict[SSAValue, SSAValue] = {}
    back: dict[SSAValue, SSAValue] = {}
    matched: list[int] = []
    position = span.start
    for wanted in prototype.ops:
        while position < span.end and not _fits(line, wanted, position, values, back):
            position += 1
        if position == span.end:
            op = line.ops[wanted]
            return f"{op.name} has no counterpart"
        pairs = (*zip(line.sources[wanted], line.sources[position], strict=True),)
        results = zip(line.ops[wanted].results, line.ops[position].results, strict=True)
        for ours, theirs in (*pairs, *results):
            values[ours], back[theirs] = theirs, ours
        matched.append(position)
        position += 1
    inside = set(matched)
    extra = [p for p in span.range if p not in inside]
    late = _late(line, inside, extra)
    if late is None:
        return "additional ops stand in the way"
    return Instance(span, matched, [values[value] for value in prototype.inputs], extra, late)


def _fits(
    line: Line, wanted: int, position: int, values: Mapping[SSAValue, SSAValue], back: Mapping[SSAValue, SSAValue]
) -> bool:
    if line.codes[wanted] != line.codes[position]:
        return False
    here: dict[SSAValue, SSAValue] = {}
    there: dict[SSAValue, SSAValue] = {}
    for ours, theirs in zip(line.sources[wanted], line.sources[position], strict=True):
        known, known_back = values.get(ours, theirs), back.get(theirs, ours)
        if (
            known is not theirs
            or known_back is not ours
            or isinstance(ours.owner, ParamRefOp) != isinstance(theirs.owner, ParamRefOp)
        ):
            return False
        if here.setdefault(ours, theirs) is not theirs or there.setdefault(theirs, ours) is not ours:
            return False
    return True


def _late(line: Line, inside: set[int], extra: Sequence[int]) -> list[int] | None:
    """The extra ops that must come after those inside; None if some must stand between them."""
    late: list[int] = []
    after: set[int] = set()
    for position in extra:
        op = line.ops[position]
        touches = any(isinstance(value.type, StateType) for value in (*line.sources[position], *op.results))
        if touches or not is_side_effect_free(op):
            return None
        if any(line.place.get(value, (-1, 0))[0] in inside | after for value in line.sources[position]):
            late.append(position)
            after.add(position)
    for position in inside:
        if any(line.place.get(value, (-1, 0))[0] in after for value in line.sources[position]):
            return None
    return late


# Without names --------------------------------------------------------------------------------------------------------


def _unnamed(line: Line, min_ops: int, taken: Iterable[Span]) -> Iterator[Group]:
    """Groups among the ops that are not taken, longest gain first."""
    is_taken = [False] * len(line.ops)
    for span in taken:
        is_taken[span.start : span.end] = [True] * len(span)
    pieces = [Span(run[0], run[-1] + 1) for run in _pieces(line, is_taken) if len(run) >= min_ops]
    text: list[int] = []
    at: list[int] = []
    for number, piece in enumerate(pieces):
        text += [*(line.codes[position] for position in piece.range), -1 - len(line.ops) - number]
        at += [*piece.range, -1]
    found = candidates_in(text, min_ops)
    while found:
        best = _best(line, found, at, is_taken, min_ops)
        if best is None:
            return
        for span in best:
            is_taken[span.start : span.end] = [True] * len(span)
        yield Group([Instance(span, span.range, line.key(span.range)[1]) for span in best])
        found = [candidate for candidate in found if candidate.bound > 0]


def _pieces(line: Line, is_taken: Sequence[bool]) -> list[list[int]]:
    """Runs of free ops that no border of a numbered module cuts."""

    def module(position: int) -> Path:
        path = line.paths[position]
        number = next((i for i, component in enumerate(path) if component.isdecimal()), -1)
        return path[: number + 1]

    free = (position for position in range(len(line.ops)) if not is_taken[position])
    runs = groupby(enumerate(free), key=lambda pair: (pair[1] - pair[0], module(pair[1])))
    return [[position for _, position in run] for _, run in runs]


def _best(
    line: Line, candidates: list[Candidate], at: Sequence[int], is_taken: Sequence[bool], min_ops: int
) -> list[Span] | None:
    """The spans of the candidate that saves most; of equals, the one that the fewest values enter and leave."""
    candidates.sort(key=lambda candidate: -candidate.bound)
    best: list[Span] | None = None
    score = (0, 0)
    for candidate in candidates:
        if candidate.bound <= 0 or candidate.bound < score[0]:
            break
        spans = _apart(line, candidate, at, is_taken, min_ops)
        candidate.bound = _saved(spans)
        if not spans or (candidate.bound, -line.cut(spans[0])) <= score:
            continue
        spans = _same(line, spans)
        if not line.is_chain(spans):
            candidate.bound = 0
            continue
        candidate.bound = _saved(spans)
        current = (candidate.bound, -line.cut(spans[0]))
        if current > score:
            best, score = spans, current
    return best


def _saved(spans: Sequence[Span]) -> int:
    return len(spans[0]) * (len(spans) - 1) if spans else 0


def _apart(line: Line, candidate: Candidate, at: Sequence[int], is_taken: Sequence[bool], min_ops: int) -> list[Span]:
    """The occurrences of a candidate that do not overlap, cut down to whole modules."""
    first = at[candidate.starts[0]]
    low, high = _whole(line, first, first + candidate.length)
    if high - low < min_ops:
        return []
    spans: list[Span] = []
    end = -1
    for start in candidate.starts:
        begin = at[start] + low - first
        if begin >= end and not any(is_taken[begin : begin + high - low]):
            end = begin + high - low
            spans.append(Span(begin, end))
    return spans


def _same(line: Line, spans: Sequence[Span]) -> list[Span]:
    """The most spans among some that are one computation."""
    exact: dict[tuple[int, ...], list[Span]] = {}
    for span in spans:
        exact.setdefault(line.key(span.range)[0], []).append(Span(span.start, span.end, _shared_path(line, span)))
    return max(exact.values(), key=len)


def _whole(line: Line, start: int, end: int) -> tuple[int, int]:
    """The part of a span that consists of whole modules, where modules are called in it; of those in the innermost
    numbered module, if there is one, and then only if they are more than a norm or so.
    """
    before = max(start - 1, 0)
    units = [_unit(path) for path in line.paths[before : end + 1]]
    numbered = any(component.isdecimal() for component in line.paths[start])
    if not numbered and len(set(units[start - before : end - before])) == 1:
        return start, end
    while start < end and start > 0 and units[start - 1 - before] == units[start - before]:
        start += 1
    while end > start and end < len(line.paths) and units[end - before] == units[end - 1 - before]:
        end -= 1
    worth = not numbered or any(isinstance(op, PRODUCTS) for op in line.ops[start:end])
    return (start, end) if worth else (start, start)


def _unit(path: Path) -> Path:
    numbers = [index for index, component in enumerate(path) if component.isdecimal()]
    return path[: numbers[-1] + 2] if numbers else path


def _shared_path(line: Line, span: Span) -> Path:
    """The innermost module that all ops of a span are in."""
    low, high = min(paths := line.paths[span.start : span.end]), max(paths)
    return tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
