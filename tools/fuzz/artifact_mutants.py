"""Artifacts, damaged or made hostile: what happens to the bytes, and what a loader owes the result."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from forgec.runtime.kernel_table import KERNEL_TABLE
from forgec.runtime.manifest import MANIFEST, PLAN, REPORT, WEIGHTS
from forgec.runtime.zip_layout import Member
from tools.fuzz import json_mutants
from tools.fuzz.packing import Part, consistent, join_weights, put_together, split_weights, take_apart
from tools.fuzz.plan_mutants import mutate_plan
from tools.fuzz.seeds import KERNELS, Seed


@dataclass(frozen=True)
class Mutant:
    """``rewritten``: its hashes are right, so it is another program, whose answers nobody knows.

    ``outside`` are the bytes of the file with the weights, where there is one. ``called``: machine code believes what
    plan and table say of it, so an artifact that has some is loaded and not called where these are rewritten.
    """

    kind: str
    seed: Seed
    content: bytes
    rewritten: bool = False
    outside: bytes | None = None
    called: bool = True


Maker = Callable[[Seed, random.Random], bytes]


def make(seeds: Sequence[Seed], run_seed: int, index: int) -> Mutant:
    """The mutant of this number: the same for the same seeds and numbers."""
    draw = random.Random(f"{run_seed}/{index}")
    seed = draw.choice([*seeds, *(seed for seed in seeds if seed.name == "control")])
    kind = kind_of(run_seed, index)
    maker, rewritten = MAKERS[kind]
    if kind == OUTSIDE:
        seed = next(seed for seed in seeds if seed.outside is not None)
        return Mutant(kind, seed, seed.content, outside=maker(seed, draw))
    if kind == TABLES:
        seed = next(seed for seed in seeds if seed.name == KERNELS)
    if WEIGHTS not in _parts(seed.content) and maker in (weights, flips_of_structure):
        maker = flips
    called = seed.name != KERNELS or not rewritten
    return Mutant(kind, seed, maker(seed, draw), rewritten, seed.outside, called)


def kind_of(run_seed: int, index: int) -> str:
    """The kind of the mutant of this number."""
    draw = random.Random(f"{run_seed}/{index}/kind")
    return draw.choices(list(MAKERS), weights=[WEIGHTS_OF_KINDS.get(kind, 1) for kind in MAKERS])[0]


@lru_cache(maxsize=16)
def _parts(content: bytes) -> dict[str, Part]:
    return take_apart(content)


def _manifest(parts: dict[str, Part]) -> dict[str, Any]:
    return json.loads(parts[MANIFEST].stored)


# Damage: bytes change, hashes do not.


def flips(seed: Seed, draw: random.Random) -> bytes:
    """A few bytes anywhere."""
    content = bytearray(seed.content)
    for _ in range(draw.choice([1, 1, 2, 5, 50])):
        position, length = draw.randrange(len(content)), draw.choice([1, 1, 2, 4, 8])
        content[position : position + length] = draw.randbytes(len(content[position : position + length]))
    return bytes(content)


def flips_of_structure(seed: Seed, draw: random.Random) -> bytes:
    """A few bits in what is not weights: headers, manifest, plan, directory."""
    parts = _parts(seed.content)
    start = seed.content.index(parts[WEIGHTS].stored)
    weights = range(start, start + len(parts[WEIGHTS].stored))
    content = bytearray(seed.content)
    for _ in range(draw.choice([1, 1, 3])):
        position = draw.randrange(len(content))
        while position in weights and position > start + 400:
            position = draw.randrange(len(content))
        content[position] ^= 1 << draw.randrange(8)
    return bytes(content)


def cuts(seed: Seed, draw: random.Random) -> bytes:
    """Truncated, or with a block removed, doubled, moved, zeroed or put elsewhere."""
    content = seed.content
    if draw.random() < 0.4:
        return content[: draw.randrange(len(content))]
    start = draw.randrange(len(content))
    end = min(start + draw.choice([1, 2, 64, 64, 512, 5000]), len(content))
    block = content[start:end]
    at = draw.randrange(len(content))
    return draw.choice(
        [
            content[:start] + content[end:],
            content[:at] + block + content[at:],
            content[:start] + bytes(len(block)) + content[end:],
            content[:at] + block + content[at + len(block) :],
            content + draw.choice([b"\0", block, content]),
            block + content,
        ]
    )


def headers(seed: Seed, draw: random.Random) -> bytes:
    """Headers that disagree with what they describe: sizes, offsets, methods, names; overlapping members."""
    parts = list(_parts(seed.content).items())
    wanted = draw.randrange(len(parts))
    offsets = [0, 1, 63, 64, 1 << 16, (1 << 31) - 1, (1 << 32) - 2, 1 << 40]
    extents = [member.start for member in _members(seed.content)] + [member.header for member in _members(seed.content)]

    def alter(member: Member) -> Member:
        if member.name != parts[wanted][0]:
            return member
        match draw.randrange(6):
            case 0:
                return replace(member, crc=draw.getrandbits(32))
            case 1:
                return replace(member, method=draw.choice([0, 8, 12, 99]))
            case 2:
                return replace(member, nbytes=draw.choice([0, member.nbytes + 1, *offsets]))
            case 3:
                return replace(member, stored_bytes=draw.choice([0, member.stored_bytes - 1, *offsets]))
            case 4:
                return replace(member, header=draw.choice([*offsets, *extents]))
        return replace(member, name=hostile_name(draw))

    try:
        return put_together(parts, alter)
    except (ValueError, OverflowError):  # what no header can say
        return seed.content[:-1]


def _members(content: bytes) -> list[Member]:
    from forgec.runtime.zip_layout import read_members

    return list(read_members(memoryview(content)))


def hostile_name(draw: random.Random) -> str:
    names = [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a\\b",
        "C:evil",
        "./plan.json",
        "plan.json",
        "plan.json/",
        "",
        "a//b",
    ]
    return draw.choice(
        [*names, "x" * 300, "é", MANIFEST, WEIGHTS, "ir/x.mlir", "a\x01b", "aux", "weights.safetensors "]
    )


def other_order(seed: Seed, draw: random.Random) -> bytes:
    """Members left out, doubled, in another order, under other names, with each other's content."""
    parts = list(_parts(seed.content).items())
    place, other = draw.randrange(len(parts)), draw.randrange(len(parts))
    match draw.randrange(5):
        case 0:
            del parts[place]
        case 1:
            parts.insert(other, parts[place])
        case 2:
            parts[place], parts[other] = parts[other], parts[place]
        case 3:
            parts[place] = (hostile_name(draw)[:250], parts[place][1])
        case _:
            parts[place] = (parts[place][0], parts[other][1])
    try:
        return put_together(parts)
    except (ValueError, OverflowError):
        return seed.content[:-1]


def outside(seed: Seed, draw: random.Random) -> bytes:
    """The file with the weights beside the artifact, damaged."""
    assert seed.outside is not None
    return draw.choice([flips, flips, cuts])(replace(seed, content=seed.outside), draw)


# Rewritten: hashes and sizes are right for what was changed.


def plans(seed: Seed, draw: random.Random) -> bytes:
    """Another plan."""
    parts = dict(_parts(seed.content))
    plan = json.loads(parts[PLAN].stored)
    mutate_plan(plan, draw)
    parts[PLAN] = Part(json.dumps(plan).encode(errors="surrogatepass"))
    return put_together(consistent(parts, _manifest(parts)))


def texts(seed: Seed, draw: random.Random) -> bytes:
    """A JSON member that is changed as text."""
    parts = dict(_parts(seed.content))
    name = draw.choice([PLAN, REPORT, MANIFEST])
    text = bytearray(parts[name].stored)
    for _ in range(draw.choice([1, 1, 2, 4])):
        position = draw.randrange(len(text) or 1)
        match draw.randrange(4) if text else 1:
            case 0:
                del text[position : position + draw.choice([1, 1, 10])]
            case 1:
                text[position:position] = draw.choice(
                    [b"[" * 5000, b"{", b'"', b"\\u0000", b"\xff", b"1", b"-", b"e9", b"NaN"]
                )
            case 2:
                text[position] = draw.choice(b'0123456789",:[]{}x ')
            case _:
                text[position : position + 4] = text[position + 4 : position + 8]
    if name != MANIFEST:
        parts[name] = Part(bytes(text))
        return put_together(consistent(parts, _manifest(parts)))
    rest = [(other, part) for other, part in parts.items() if other != MANIFEST]
    return put_together([*rest, (MANIFEST, Part(bytes(text)))])


def manifests(seed: Seed, draw: random.Random) -> bytes:
    """Another manifest; half of the time with hashes that are right again."""
    parts = dict(_parts(seed.content))
    manifest = _manifest(parts)
    for _ in range(draw.choice([1, 1, 2])):
        if draw.random() < 0.6:
            chosen = draw.choice(["members", "weights", "format_version", "entries"])
            target = manifest.get(chosen)
            json_mutants.mutate(target if isinstance(target, (dict, list)) and target else manifest, draw)
        else:
            json_mutants.mutate(manifest, draw)
    if draw.random() < 0.2 and isinstance(manifest.get("weights"), dict):
        manifest["weights"]["file"] = draw.choice(["/etc/passwd", "../x", "passwd", "", ".", "other.safetensors"])
    if draw.random() < 0.5:
        return put_together(consistent(parts, manifest))
    rest = [(name, part) for name, part in parts.items() if name != MANIFEST]
    return put_together([*rest, (MANIFEST, Part(json.dumps(manifest).encode(errors="surrogatepass")))])


def weights(seed: Seed, draw: random.Random) -> bytes:
    """Another safetensors header, or another length of it."""
    parts = dict(_parts(seed.content))
    header, data = split_weights(parts[WEIGHTS].stored)
    if not header:
        return flips(seed, draw)
    length = None
    match draw.randrange(5):
        case 0:
            length = draw.choice([0, 1, 7, 64, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
        case 1:
            name = draw.choice(list(header))
            header[draw.choice(["__metadata__", "", "x", name + "x"])] = header.pop(name)
        case 2:
            first, second = draw.choice(list(header)), draw.choice(list(header))
            header[first], header[second] = header[second], header[first]
        case 3:
            json_mutants.consistently(header, draw, lambda value: isinstance(value, int))
        case _:
            for _ in range(draw.choice([1, 2])):
                json_mutants.mutate(header, draw)
    data = draw.choice([data, data, data, data[:-64], data + bytes(64), b""])
    parts[WEIGHTS] = Part(join_weights(header, data, length))
    return put_together(consistent(parts, _manifest(parts)))


def bombs(seed: Seed, draw: random.Random) -> bytes:
    """Deflated members that expand to more than they say, or than there is memory; streams that are none."""
    parts = dict(_parts(seed.content))
    manifest = _manifest(parts)
    deflated = [name for name, part in parts.items() if part.inflated is not None]
    name = draw.choice([*deflated, PLAN, REPORT]) if deflated else PLAN
    size = draw.choice([1 << 20, 16 << 20])
    stream = _bomb(size)
    said = draw.choice([size, 0, 100, size - 1, size + 1, 1 << 31, 1 << 33, (1 << 63) - 1])
    stored = draw.choice([stream, stream[:-1], stream[: len(stream) // 2], stream + b"\0", draw.randbytes(40), b""])
    parts[name] = Part(stored, said)
    record = manifest["members"].get(name)
    if isinstance(record, dict):
        record.setdefault("stored_sha256", record["sha256"])
    try:
        return put_together(consistent(parts, manifest))
    except (ValueError, OverflowError):
        return seed.content[:-1]


@lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(bytes(size)) + compressor.flush()


def reports(seed: Seed, draw: random.Random) -> bytes:
    """Another report, and another text of the IR."""
    parts = dict(_parts(seed.content))
    report = json.loads(parts[REPORT].stored)
    for _ in range(draw.choice([1, 3])):
        json_mutants.mutate(report, draw)
    parts[REPORT] = Part(json.dumps(copy.deepcopy(report)).encode(errors="surrogatepass"))
    return put_together(consistent(parts, _manifest(parts)))


def tables(seed: Seed, draw: random.Random) -> bytes:
    """Another table of kernels, or machine code of another size."""
    parts = dict(_parts(seed.content))
    if draw.random() < 0.8:
        table = json.loads(parts[KERNEL_TABLE].stored)
        for _ in range(draw.choice([1, 1, 2])):
            json_mutants.mutate(table, draw)
        parts[KERNEL_TABLE] = Part(json.dumps(table).encode(errors="surrogatepass"))
    else:
        name = draw.choice([name for name in parts if name.startswith("kernels/") and name != KERNEL_TABLE])
        code = parts[name].stored
        parts[name] = Part(draw.choice([b"", code[:1], code[:-1], code + bytes(1), code + code]))
    return put_together(consistent(parts, _manifest(parts)))


OUTSIDE, TABLES = "outside", "tables of kernels"
MAKERS: dict[str, tuple[Maker, bool]] = {
    OUTSIDE: (outside, False),
    "flips": (flips, False),
    "flips of structure": (flips_of_structure, False),
    "cuts": (cuts, False),
    "headers": (headers, False),
    "other order": (other_order, False),
    "plans": (plans, True),
    "texts": (texts, True),
    "manifests": (manifests, True),
    TABLES: (tables, True),
    "weights": (weights, True),
    "bombs": (bombs, True),
    "reports": (reports, True),
}

WEIGHTS_OF_KINDS = {"plans": 12, "weights": 3, "texts": 2, "flips of structure": 2, "manifests": 2, "bombs": 0.3}
"""How often each kind is made, 1 unless given: where the checks are many, the mutants are."""
