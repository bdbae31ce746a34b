"""Register grants, and what is live in registers, as constraints of a model (rules 6 and 7 of ``schedule.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from forgec.schedule.graph import Value

if TYPE_CHECKING:
    from forgec.schedule.model import Model, Times

MOST_BYTES = 1 << 24
"""That a group is asked whether it would need beyond its grant."""


def add(model: Model) -> None:
    """Grants, and what is live of them in each phase."""
    facts = model.machine.registers
    steps = range(-(-facts.least // facts.granularity), facts.most // facts.granularity + 1)
    model.grant = [
        model.cp.new_int_var(steps[0], steps[-1], f"registers of {group} / {facts.granularity}")
        for group in range(model.most_groups)
    ]
    costs: list[cp_model.IntVar] = []
    threads_at_most = 32 * -(-max(model.sizes) // facts.group_warps) * facts.group_warps
    for group, grant in enumerate(model.grant):
        cost = model.cp.new_int_var(0, threads_at_most * facts.most, f"registers granted to {group}")
        for size, literal in model.has_size[group].items():
            granted = 32 * -(-size // facts.group_warps) * facts.group_warps
            model.cp.add(cost == granted * facts.granularity * grant).only_enforce_if(literal)
        model.cp.add(grant == steps[0]).only_enforce_if(model.has_size[group][0])
        costs.append(cost)
    model.limit("register file", cp_model.LinearExpr.sum(costs), facts.total, "registers of all threads")
    if facts.uniform:
        common = model.cp.new_int_var(steps[0], steps[-1], "registers / granularity")
        for group, grant in enumerate(model.grant):
            model.cp.add(grant == common).only_enforce_if(model.has_size[group][0].negated())
    beyond = None
    if model.measured == "registers":
        beyond = model.cp.new_int_var(0, MOST_BYTES, "bytes beyond the grant")
        model.demands["registers"] = (beyond, 0, "bytes of registers beyond what a group may be granted")
    if model.on("registers") or beyond is not None:
        for times in model.times:
            live(model, times, times.horizon + 2 * times.ii, beyond)


def live(model: Model, times: Times, horizon: int, beyond: cp_model.IntVar | None) -> None:
    """At each slot, what is live in registers: whole intervals' worth always, the rest for a part of each.

    ``beyond``: bytes that a group may have beyond its grant.
    """
    facts, cp = model.machine.registers, model.cp
    lives: dict[str, cp_model.IntVar] = {}
    ranges: list[tuple[Value, cp_model.IntVar, cp_model.IntVar, cp_model.IntVar, set[int]]] = []
    for value in times.graph.values:
        if value.memory != "register" or not value.size:
            continue
        acquire = times.start[value.producer] + value.begin
        life = cp.new_int_var(0, 2 * horizon, f"life of {value.name}")
        ends = [times.start[value.producer] + times.graph.op(value.producer).latency]
        ends += [times.start[read.op] + read.distance * times.ii + read.release for read in value.reads]
        cp.add_max_equality(life, [end - acquire for end in ends])
        whole = cp.new_int_var(0, 2 * horizon // times.ii, f"whole lives of {value.name}")
        rest = cp.new_int_var(0, times.ii - 1, f"rest of the life of {value.name}")
        cp.add(life == times.ii * whole + rest)
        lives[value.name] = life
        place = times.slot[value.producer]
        if value.begin:
            place = model.modulo(acquire, horizon, times.ii, f"acquire {value.name}")
        clusters = {model.cluster_of[name] for name in (value.producer, *(read.op for read in value.reads))}
        ranges.append((value, place, rest, whole, clusters))
    for group in range(model.most_groups):
        intervals: list[cp_model.IntervalVar] = []
        demands: list[int] = []
        always: list[cp_model.LinearExpr] = []
        for value, place, rest, whole, clusters in ranges:
            literals = [model.member[c][group] for c in clusters if group < len(model.member[c])]
            if not literals:
                continue
            present = literals[0]
            if len(literals) > 1:
                present = cp.new_bool_var(f"{value.name} in {group}")
                cp.add_max_equality(present, literals)
            intervals += model.copies(place, rest, times.ii, present, f"{value.name} live in {group}")
            demands += [value.size] * 2
            here = cp.new_int_var(0, 2 * horizon // times.ii, f"{value.name} always in {group}")
            cp.add(here >= whole).only_enforce_if(present)
            always.append(value.size * here)
        if not intervals:
            continue
        most = 4 * 32 * max(model.sizes) * facts.most + (0 if beyond is None else MOST_BYTES)
        usable = cp.new_int_var(0, most, f"bytes of {group}")
        for size, literal in model.has_size[group].items():
            threads = 32 * size
            granted = 4 * threads * (facts.granularity * model.grant[group] - facts.reserve)
            limit = granted + (0 if beyond is None else beyond)
            if facts.least >= facts.reserve:
                cp.add(usable <= limit).only_enforce_if(literal)
            else:
                # A grant below the reserve has room for nothing, which is enough for what keeps nothing.
                nothing = cp.new_bool_var(f"{group} of {size} warps has room for nothing")
                cp.add(usable <= limit).only_enforce_if(literal, nothing.negated())
                cp.add(usable <= 0).only_enforce_if(nothing)
        # An empty group has no bytes, and nothing in it that would need any.
        room = cp.new_int_var(0, most, f"bytes of {group} that come and go")
        cp.add(room + cp_model.LinearExpr.sum(always) == usable)
        cp.add_cumulative(intervals, demands, room)
        # Implied, and what refutes most tiles that do not fit: the least that a cluster needs, and areas.
        for index, names in enumerate(model.clusters):
            if group < len(model.member[index]):
                member = model.member[index][group]
                if model.on("dependences"):
                    # What an op reads is there when it starts, and so are all values that it reads.
                    cp.add(usable >= model.least_registers(names)).only_enforce_if(member)
                area = [value.size * lives[value.name] for value, *_, clusters in ranges if index in clusters]
                cp.add(times.ii * usable >= sum(area)).only_enforce_if(member)
