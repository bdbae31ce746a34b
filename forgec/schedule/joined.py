"""What several loops of one kernel share: clusters, the kinds of their ops, and what keeps them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forgec.schedule.graph import Graph, Op
from forgec.schedule.machine import Machine


def joined_clusters(graphs: Sequence[Graph]) -> list[list[str]]:
    """Clusters over all phases, where ops of one name are one op, and registers of one name are one storage."""
    found: list[list[str]] = []
    storages: list[set[str]] = []
    for graph in graphs:
        for names in graph.clusters():
            kept = {value.name for value in graph.values if value.producer in names and not value.may_cross()}
            meeting = [n for n, each in enumerate(found) if set(each) & set(names) or storages[n] & kept]
            merged = list(dict.fromkeys(name for each in (*(found[n] for n in meeting), names) for name in each))
            kept = kept.union(*(storages[n] for n in meeting))
            place = meeting[0] if meeting else len(found)
            found = [each for n, each in enumerate(found) if n not in meeting]
            storages = [each for n, each in enumerate(storages) if n not in meeting]
            found.insert(place, merged)
            storages.insert(place, kept)
    return found


def joined_ops(graphs: Sequence[Graph]) -> dict[str, Op]:
    """What ops of one name are, over all phases, for the groups they are in: warps, and whether one is variable."""
    found: dict[str, Op] = {}
    for graph in graphs:
        for op in graph.ops:
            other = found.get(op.name, op)
            found[op.name] = replace(other, warps=max(op.warps, other.warps), variable=op.variable or other.variable)
    return found


def kept_apart(graphs: Sequence[Graph], machine: Machine, clusters: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs of clusters that the machine's ``isolate`` keeps out of one group."""
    if machine.isolate == "none":
        return []
    ops = joined_ops(graphs)
    waiting = {
        read.op for graph in graphs for value in graph.values if ops[value.producer].variable for read in value.reads
    }

    def kind(names: Sequence[str]) -> str:
        if any(ops[name].variable for name in names):
            return "variable"
        if machine.isolate == "waits" and any(name in waiting for name in names):
            return "waiting"
        return "fixed"

    kinds = [kind(names) for names in clusters]
    return [(a, b) for b in range(len(kinds)) for a in range(b) if kinds[a] != kinds[b]]
