"""Hypothesis without deadlines: on a shared machine they fail for reasons that have nothing to do with the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("forgec", deadline=None)
settings.load_profile("forgec")
