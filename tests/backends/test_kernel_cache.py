"""The cache of compiled kernels: found by content, bounded, safe among processes, and never believed blindly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgec.backends import kernel_cache
from forgec.backends.kernel_cache import KernelCache, ago, cache_folder, kernel_key, versions
from forgec.diagnostics import Location
from forgec.ir.locations import to_attribute
from tests.cli.command import forgec
from tests.ir.tile.kernels import SCALE, SCALE_TYPES, kernel_of

KEYS = [f"{number:064x}" for number in range(100)]


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "new" / "folder")
    assert cache.find(KEYS[0]) is None
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"code")
        return b"code"

    assert cache.find_or_make(KEYS[0], make) == b"code"
    assert KernelCache(cache.folder).find_or_make(KEYS[0], make) == b"code"
    assert len(made) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: b"",
        lambda c: c[:20],
        lambda c: c[:-1],
        lambda c: c[:-1] + b"x",
        lambda c: b"x" + c[1:],
        lambda c: c + c,
    ],
)
def test_damaged_entries_are_made_again(tmp_path: Path, damage) -> None:
    cache = KernelCache(tmp_path)
    cache.keep(KEYS[0], b"code")
    path = tmp_path / f"{KEYS[0]}.kernel"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.find(KEYS[0]) is None
    assert not path.exists()
    assert cache.find_or_make(KEYS[0], lambda: b"again") == b"again"
    assert cache.find(KEYS[0]) == b"again"


def test_an_entry_of_another_key_is_made_again(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path)
    for key, content in zip(KEYS, (b"one", b"two"), strict=False):
        cache.keep(key, content)
    first, second = (tmp_path / f"{key}.kernel" for key in KEYS[:2])
    first.write_bytes(second.read_bytes())
    assert cache.find_or_make(KEYS[0], lambda: b"again") == b"again"
    assert cache.find(KEYS[1]) == b"two"


def test_the_entries_that_were_not_used_for_longest_go(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path, limit_bytes=10_000)
    for number in range(8):
        cache.keep(KEYS[number], bytes(1000))
        os.utime(tmp_path / f"{KEYS[number]}.kernel", (number, number))
    assert cache.find(KEYS[0]) is not None  # now the one used last
    for number in range(8, 12):
        cache.keep(KEYS[number], bytes(1000))
    left = {entry.key for entry in cache.entries()}
    assert KEYS[0] in left
    assert KEYS[11] in left
    assert KEYS[1] not in left
    assert sum(entry.size_bytes for entry in cache.entries()) <= 10_000


def test_an_entry_that_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path, limit_bytes=1000)
    cache.keep(KEYS[0], b"small")
    cache.keep(KEYS[1], bytes(1000))
    assert [entry.key for entry in cache.entries()] == [KEYS[0]]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = KernelCache(tmp_path / "file" / "folder")
    assert cache.find_or_make(KEYS[0], lambda: b"code") == b"code"
    assert cache.entries() == []


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cache = KernelCache(tmp_path)
    cache.keep(KEYS[0], b"code")
    assert [entry.key for entry in cache.clear()] == [KEYS[0]]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


WRITER = """
import sys
from pathlib import Path
from forgec.backends.kernel_cache import KernelCache
cache = KernelCache(Path(sys.argv[1]), limit_bytes=60_000)
for turn in range(3):
    for number in range(40):
        wanted = str(number).encode() * 1000
        assert cache.find_or_make(f"{number:064x}", lambda: wanted) == wanted
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sum(entry.size_bytes for entry in KernelCache(tmp_path).entries()) <= 80_000
    assert all(path.suffix == ".kernel" for path in tmp_path.iterdir())


def test_keys_know_content_and_neither_names_nor_places() -> None:
    kernel = kernel_of(SCALE, SCALE_TYPES)
    renamed = kernel_of(SCALE.replace("@scale", "@other").replace("%v", "%loaded").replace("%x", "%in"), SCALE_TYPES)
    for op in renamed.body.block.ops:
        op.location = to_attribute(Location("model.py", 3, "forward", "layers.1"))
    assert kernel_key(kernel, "cpu") == kernel_key(renamed, "cpu")
    assert renamed.sym_name.data == "other"
    assert renamed.parameters[0].name_hint == "in"
    different = [
        kernel_key(kernel_of(SCALE.replace("2.0", "3.0"), SCALE_TYPES), "cpu"),
        kernel_key(kernel, "sm_90a"),
        kernel_key(kernel, "cpu", ""),
        kernel_key(kernel, "cp", "u"),
        kernel_key(kernel, "cpu"),
    ]
    assert len(set(different)) == len(different)


def test_versions_know_the_backends_text(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = versions(tmp_path, "xdsl", "no-such-package")
    assert "xdsl 0.74" in first
    assert "no-such-package none" in first
    (tmp_path / "a.py").write_text("2")
    versions.cache_clear()
    assert versions(tmp_path, "xdsl", "no-such-package") != first


def test_times_are_told_in_words() -> None:
    assert [ago(0.0, now) for now in (-5.0, 59.0, 60.0, 7200.0, 200000.0)] == [
        "just now", "just now", "1 minute ago", "2 hours ago", "2 days ago"
    ]  # fmt: skip


def test_the_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FORGEC_CACHE_DIR")
    assert cache_folder().parts[-2:] == ("forgec", "kernels")


def test_the_command_lists_and_clears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEC_CACHE_DIR", str(tmp_path))
    assert forgec("cache", "path").out == f"{tmp_path}\n"
    assert forgec("cache", "list").out == "0 kernels, 0.0 MB\n"
    kernel_cache.KernelCache().keep(KEYS[1], bytes(2_000_000))
    listed = forgec("cache", "list").out.splitlines()
    assert listed == [f"{KEYS[1][:16]}   2,000,080 bytes  used just now", "1 kernel, 2.0 MB"]
    found = forgec("cache", "list", "--json").json
    assert found["folder"] == str(tmp_path)
    assert [(entry["key"], entry["bytes"]) for entry in found["kernels"]] == [(KEYS[1], 2_000_080)]
    assert forgec("cache", "clear").out == "removed 1 kernel, 2.0 MB\n"
    assert forgec("cache", "list").out == "0 kernels, 0.0 MB\n"
