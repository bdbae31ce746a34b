"""Machines of forgec's own, read once."""

from __future__ import annotations

import pytest

from forgec.schedule.machine import Machine, named


@pytest.fixture(scope="session")
def hopper() -> Machine:
    return named("sm_90a")
