"""The check of the vector functions on all numbers of float32, on a sample of them."""

from __future__ import annotations

import numpy as np
import pytest

from tools import check_math


def test_functions_are_within_their_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_math.main(["exp", "tanh", "erf", "--every", "4093", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("exp", "tanh", "erf"))


def test_a_function_that_errs_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(check_math.LIMITS_32, "exp", 0.4)
    assert check_math.main(["exp", "--every", "65537", "--processes", "1"]) == 1
    assert "more than 0.4" in capsys.readouterr().out


def test_what_is_no_number_has_to_be_the_same() -> None:
    ours = np.array([np.nan, np.inf, np.inf, -0.0, 0.0, np.nan], np.float32)
    exact = np.array([np.nan, np.inf, -np.inf, -0.0, -0.0, 1.0])
    found = check_math.special_errors(ours, exact, np.full(6, np.nan, np.float32))
    assert found.tolist() == [0, 0, np.inf, 0, np.inf, np.inf]
