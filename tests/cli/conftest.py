"""Artifacts that several of the command's tests use, compiled once for each worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import models
from tests.cli.command import forgec


def _compiled(folder: Path, source: str) -> Path:
    (folder / "model.py").write_text(source)
    finished = forgec("compile", folder / "model.py", "-o", folder / "model.forge")
    assert finished.code == 0, finished.err
    return folder / "model.forge"


@pytest.fixture(scope="session")
def static_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``models.STATIC``: one tensor in, a dict out, one fallback."""
    return _compiled(tmp_path_factory.mktemp("static"), models.STATIC)


@pytest.fixture(scope="session")
def dynamic_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``models.DYNAMIC``: a dynamic extent, state, a bfloat16 result."""
    return _compiled(tmp_path_factory.mktemp("dynamic"), models.DYNAMIC)
