"""Damaged and hostile artifacts: always an error with a code, never a crash, never a wrong answer."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.runtime import load, manifest, open_artifact, write_artifact
from forgec.runtime.strict_json import print_json
from forgec.runtime.zip_layout import Member, central_header, end_records, local_header, read_members
from tests.runtime.examples import MLP_WEIGHTS, mlp, weights

CODES = {"FORGE-A001", "FORGE-A002", "FORGE-A003", "FORGE-A004", "FORGE-A005", "FORGE-A006"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "m.forge"
    write_artifact(path, mlp(), weights(*MLP_WEIGHTS), ir={"forge": "builtin.module {}\n" * 50}, report={"a": 1})
    return path.read_bytes()


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., str]:
    """Loads the bytes, expects an error of the artifact family and returns its text."""

    def checked(content: bytes, verify: Any = "fast") -> str:
        path = tmp_path / "damaged.forge"
        path.write_bytes(content)
        with pytest.raises(ForgeError) as caught:
            load(path, verify=verify).ir("forge")
        assert {diagnostic.code for diagnostic in caught.value.diagnostics} <= CODES
        return str(caught.value)

    return checked


def test_sound(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.forge").write_bytes(sound)
    load(tmp_path / "m.forge", verify="full")


def test_truncated(sound: bytes, check: Callable[..., str]) -> None:
    for length in {*range(0, len(sound), 23), *range(80), *range(len(sound) - 80, len(sound))}:
        check(sound[:length])


def test_longer(sound: bytes, check: Callable[..., str]) -> None:
    check(sound + b"\0")
    check(b"\0" + sound)
    check(sound + sound)


def weight_data(sound: bytes) -> range:
    """The offsets of the tensors' bytes, which only a full check covers."""
    member = next(member for member in read_members(memoryview(sound)) if member.name == manifest.WEIGHTS)
    header = 8 + struct.unpack("<Q", sound[member.start : member.start + 8])[0]
    return range(member.start + header, member.end)


def test_every_flipped_byte_outside_the_weights(sound: bytes, check: Callable[..., str]) -> None:
    covered = weight_data(sound)
    draw = random.Random(1)
    for position in range(len(sound)):
        if position in covered:
            continue
        damaged = bytearray(sound)
        damaged[position] ^= 1 << draw.randrange(8)
        check(bytes(damaged))


def test_a_flipped_byte_of_the_weights(sound: bytes, check: Callable[..., str], tmp_path: Path) -> None:
    damaged = bytearray(sound)
    damaged[weight_data(sound)[100]] ^= 1
    (tmp_path / "m.forge").write_bytes(damaged)
    load(tmp_path / "m.forge")
    assert "FORGE-A003" in check(bytes(damaged), verify="full")


def test_random_garbage(check: Callable[..., str]) -> None:
    draw = random.Random(2)
    for length in (0, 1, 21, 22, 23, 100, 5000):
        check(draw.randbytes(length))
        check(b"PK\x03\x04" + draw.randbytes(length))
        check(b"PK\x03\x04" + draw.randbytes(length) + b"PK\x05\x06" + draw.randbytes(18))


def test_other_zip_files(tmp_path: Path, check: Callable[..., str]) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
    assert "FORGE-A001" in check((tmp_path / "other.zip").read_bytes())
    torch.save({}, tmp_path / "model.pt")
    assert "FORGE-A001" in check((tmp_path / "model.pt").read_bytes())


Content = list[tuple[str, bytes]]


def contents(sound: bytes) -> dict[str, bytes]:
    """The stored bytes of each member."""
    return {member.name: sound[member.start : member.end] for member in read_members(memoryview(sound))}


def pack(members: Content, deflated: dict[str, int] | None = None) -> bytes:
    """A zip file of our layout with any members; ``deflated`` gives the content's size of those that are."""
    body, entries = b"", []
    for name, content in members:
        size = (deflated or {}).get(name)
        crc = zlib.crc32(zlib.decompress(content, -15) if size is not None else content)
        member = Member(
            name, 0 if size is None else 8, crc, len(content) if size is None else size, len(content), len(body)
        )
        body += local_header(member) + content
        entries.append(member)
    directory = b"".join(map(central_header, entries))
    return body + directory + end_records(len(entries), len(directory), len(body))


def forge(sound: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], object]) -> bytes:
    """The artifact with a changed manifest or members, all hashes of stored members right again."""
    parts = contents(sound)
    data = json.loads(parts.pop("manifest.json"))
    sizes = {"ir/forge.mlir": data["members"]["ir/forge.mlir"]["bytes"]}
    change(data, parts)
    for name, record in data.get("members", {}).items():
        if name in parts and isinstance(record, dict) and "stored_sha256" not in record:
            record |= {"bytes": len(parts[name]), "sha256": hashlib.sha256(parts[name]).hexdigest()}
    return pack([*parts.items(), ("manifest.json", print_json(data))], sizes)


def edit_json(parts: dict[str, bytes], name: str, change: Callable[[Any], object]) -> None:
    data = json.loads(parts[name])
    change(data)
    parts[name] = print_json(data)


def test_repacking_alone_changes_nothing(sound: bytes, tmp_path: Path) -> None:
    assert forge(sound, lambda data, parts: None) == sound


MANIFESTS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("FORGE-A001", lambda d: d.pop("format")),
    ("FORGE-A001", lambda d: d.update(format="zip")),
    ("FORGE-A002", lambda d: d.update(format_version=2)),
    ("FORGE-A002", lambda d: d.update(format_version="1", producer={"forgec": "9.9"})),
    ("FORGE-A002", lambda d: d.pop("format_version")),
    ("FORGE-A003", lambda d: d.pop("members")),
    ("FORGE-A003", lambda d: d.update(weights=[])),
    ("FORGE-A003", lambda d: d["members"].pop("plan.json")),
    ("FORGE-A003", lambda d: d["members"].update({"extra": {"bytes": 1, "sha256": "0" * 64}})),
    ("FORGE-A003", lambda d: d["members"].update({"plan.json": 1})),
    ("FORGE-A003", lambda d: d["members"]["plan.json"].update(stored_sha256="0" * 64)),
    ("FORGE-A003", lambda d: d["members"]["plan.json"].update(more=1)),
    ("FORGE-A003", lambda d: d["members"].update({"weights.safetensors": {"bytes": 1, "sha256": "0" * 64}})),
    ("FORGE-A003", lambda d: d["members"].update({"manifest.json": {"bytes": 1, "sha256": "0" * 64}})),
    ("FORGE-A003", lambda d: d["members"]["ir/forge.mlir"].update(bytes=1 << 40)),
    ("FORGE-A003", lambda d: d["members"]["ir/forge.mlir"].update(bytes=901)),
    ("FORGE-A003", lambda d: d["members"]["ir/forge.mlir"].update(sha256="0" * 64)),
    ("FORGE-A003", lambda d: d["weights"].update(bytes=64)),
    ("FORGE-A003", lambda d: d["weights"].update(bytes=-1)),
    ("FORGE-A003", lambda d: d["weights"].update(header_sha256="0" * 64)),
    ("FORGE-A003", lambda d: d["weights"].update(sha256="x")),
    ("FORGE-A003", lambda d: d["weights"].update(aliases={"a": "nowhere"})),
    ("FORGE-A003", lambda d: d["weights"].update(aliases={"up": "down"})),
    ("FORGE-A003", lambda d: d["weights"].update(aliases=[])),
    ("FORGE-A003", lambda d: d["weights"].update(file="w.safetensors")),
    ("FORGE-A003", lambda d: d["weights"].update(file="../w.safetensors")),
    ("FORGE-A003", lambda d: d["weights"].update(file="/etc/passwd")),
    ("FORGE-A003", lambda d: d["weights"].update(file="..")),
    ("FORGE-A003", lambda d: d["weights"].update(file="")),
]


@pytest.mark.parametrize(("code", "change"), MANIFESTS, ids=range(len(MANIFESTS)))
def test_manifests(
    sound: bytes, check: Callable[..., str], code: str, change: Callable[[dict[str, Any]], object]
) -> None:
    assert code in check(forge(sound, lambda data, parts: change(data)))


def test_the_writer_of_another_version_is_named(sound: bytes, check: Callable[..., str]) -> None:
    text = check(forge(sound, lambda data, parts: data.update(format_version=7, producer={"forgec": "9.9"})))
    assert "has format version 7, written by forgec 9.9; this runtime reads version 1" in text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 100000])
@pytest.mark.parametrize("name", ["plan.json", "report.json", "manifest.json"])
def test_json_that_is_none(sound: bytes, check: Callable[..., str], name: str, content: bytes) -> None:
    if name == "manifest.json":
        check(pack([*list(contents(sound).items())[:-1], (name, content)], {"ir/forge.mlir": 900}))
    elif name == "report.json":
        path_content = forge(sound, lambda data, parts: parts.update({name: content}))
        check_report(path_content, check)
    else:
        check(forge(sound, lambda data, parts: parts.update({name: content})))


def check_report(content: bytes, check: Callable[..., str]) -> None:
    """A report is parsed when it is asked for."""
    path = Path(check.__closure__[0].cell_contents) / "report.forge"  # type: ignore[index]
    path.write_bytes(content)
    artifact = open_artifact(path)
    with pytest.raises(ForgeError, match="FORGE-A003"):
        _ = artifact.report


def test_a_plan_that_is_not_valid(sound: bytes, check: Callable[..., str]) -> None:
    def change(data: dict[str, Any], parts: dict[str, bytes]) -> None:
        edit_json(parts, "plan.json", lambda plan: plan["entries"][0].update(arena_bytes=1))

    assert "FORGE-A004: plan.json" in check(forge(sound, change)).replace("error[", "").replace("]", "")


def test_a_plan_that_wants_other_weights(sound: bytes, check: Callable[..., str]) -> None:
    def reshaped(data: dict[str, Any], parts: dict[str, bytes]) -> None:
        edit_json(parts, "plan.json", lambda plan: plan["entries"][0]["registers"][1].update(shape=[8, 17]))

    def renamed(data: dict[str, Any], parts: dict[str, bytes]) -> None:
        edit_json(parts, "plan.json", lambda plan: plan["entries"][0]["registers"][1].update(name="left"))

    assert "'up' is F32[8, 16], the plan has f32" in check(forge(sound, reshaped))
    assert "there is no tensor 'left'" in check(forge(sound, renamed))


HEADERS: list[Any] = [
    {},
    {"up": 1},
    {"up": {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 512]}},
    {"up": {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 1024]}},
    {"up": {"dtype": "F32", "shape": [8, 17], "data_offsets": [0, 512]}},
    {"up": {"dtype": "F31", "shape": [256], "data_offsets": [0, 1024]}},
    {"up": {"dtype": "F32", "shape": [-256], "data_offsets": [0, 1024]}},
    {"up": {"dtype": "F32", "shape": [256], "data_offsets": [1024, 0]}},
    {"up": {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024], "more": 1}},
    {"up": {"dtype": "F32", "shape": [256.0], "data_offsets": [0, 1024]}},
    {"up": {"dtype": "F32", "shape": [1 << 70], "data_offsets": [0, 1024]}},
    {"up": {"dtype": "F32", "shape": [128], "data_offsets": [0, 512]},
     "down": {"dtype": "F32", "shape": [192], "data_offsets": [256, 1024]}},
    {"up": {"dtype": "F32", "shape": [128], "data_offsets": [0, 512]},
     "down": {"dtype": "F32", "shape": [127], "data_offsets": [516, 1024]}},
    [],
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_of_the_weights(sound: bytes, check: Callable[..., str], header: Any) -> None:
    def change(data: dict[str, Any], parts: dict[str, bytes]) -> None:
        text = json.dumps(header).encode()
        head = struct.pack("<Q", len(text)) + text
        parts[manifest.WEIGHTS] = head + sound[weight_data(sound).start : weight_data(sound).stop]
        data["weights"] |= {
            "bytes": len(parts[manifest.WEIGHTS]),
            "sha256": hashlib.sha256(parts[manifest.WEIGHTS]).hexdigest(),
            "header_sha256": hashlib.sha256(head).hexdigest(),
        }

    assert "FORGE-A003" in check(forge(sound, change))


@pytest.mark.parametrize("length", [0, 7, 1 << 20, 1 << 63])
def test_lengths_of_the_weights_header(sound: bytes, check: Callable[..., str], length: int) -> None:
    def change(data: dict[str, Any], parts: dict[str, bytes]) -> None:
        parts[manifest.WEIGHTS] = struct.pack("<Q", length) + parts[manifest.WEIGHTS][8:]

    assert "FORGE-A003" in check(forge(sound, change))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a//b",
        "a\\b",
        "C:evil",
        "./plan.json",
        "plan.json/",
        "a\x00b",
        "é",
        "x" * 300,
        "",
    ],
)
def test_names_that_would_leave_the_folder(sound: bytes, check: Callable[..., str], name: str) -> None:
    assert "FORGE-A001" in check(pack([*contents(sound).items(), (name, b"x")], {"ir/forge.mlir": 900}))


def test_duplicate_names(sound: bytes, check: Callable[..., str]) -> None:
    parts = contents(sound)
    content = pack([*parts.items(), ("plan.json", parts["plan.json"])], {"ir/forge.mlir": 900})
    assert "same name" in check(content)


def test_overlapping_members(sound: bytes, check: Callable[..., str]) -> None:
    members = list(read_members(memoryview(sound)))
    body = sound[: members[-1].end]
    for index in range(1, len(members)):
        moved = list(members)
        old = moved[index]
        moved[index] = Member(old.name, old.method, old.crc, old.nbytes, old.stored_bytes, members[index - 1].header)
        directory = b"".join(map(central_header, moved))
        assert "FORGE-A001" in check(body + directory + end_records(len(moved), len(directory), len(body)))


def test_members_in_a_gap(sound: bytes, check: Callable[..., str]) -> None:
    members = list(read_members(memoryview(sound)))
    directory = b"".join(map(central_header, members))
    body = sound[: members[-1].end] + b"hidden"
    assert "FORGE-A001" in check(body + directory + end_records(len(members), len(directory), len(body)))


def test_a_decompression_bomb(sound: bytes, check: Callable[..., str]) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(64 << 20)) + compressor.flush()

    def change(claimed: int) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
        def changed(data: dict[str, Any], parts: dict[str, bytes]) -> None:
            parts["ir/forge.mlir"] = bomb
            data["members"]["ir/forge.mlir"] |= {
                "bytes": claimed,
                "sha256": hashlib.sha256(bytes(claimed)).hexdigest(),
                "stored_sha256": hashlib.sha256(bomb).hexdigest(),
            }

        return changed

    assert "FORGE-A003" in check(forge(sound, change(900)))


def test_a_deflated_plan_and_a_stored_ir(sound: bytes, check: Callable[..., str]) -> None:
    parts = contents(sound)
    assert "FORGE-A003" in check(pack(list(parts.items())))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = len(parts["plan.json"])
    parts["plan.json"] = compressor.compress(parts["plan.json"]) + compressor.flush()
    assert "FORGE-A003" in check(pack(list(parts.items()), {"ir/forge.mlir": 900, "plan.json": size}))


def test_random_changes_to_several_bytes(sound: bytes, tmp_path: Path) -> None:
    draw = random.Random(3)
    path = tmp_path / "m.forge"
    for _ in range(300):
        damaged = bytearray(sound)
        for _ in range(draw.choice([1, 3, 20])):
            position, length = draw.randrange(len(sound)), draw.choice([1, 2, 4, 8])
            damaged[position : position + length] = draw.randbytes(length)
        path.write_bytes(damaged)
        try:
            load(path, verify="full").ir("forge")
        except ForgeError as reason:
            assert reason.code in CODES  # noqa: PT017
        else:
            assert bytes(damaged) == sound
