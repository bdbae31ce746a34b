"""A folder with forgec and a few packages, for interpreters that shall find nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def link_packages(folder: Path, *names: str) -> Path:
    """Makes the folder, and in it a link to forgec and one to each of these installed packages."""
    folder.mkdir()
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent)
    (folder / "forgec").symlink_to(ROOT / "forgec")
    return folder
