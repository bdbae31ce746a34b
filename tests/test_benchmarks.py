"""The command of the benchmarks: what it says before it measures anything."""

from __future__ import annotations

import pytest
import torch

from benchmarks import ops
from benchmarks.__main__ import NAMES, main
from benchmarks.models import Case
from forgec.backends.cpu.backend import level_of


def test_help_names_every_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in (*NAMES, "peers"))


def test_a_name_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "startup", "nothing"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "there is no benchmark 'nothing'" in capsys.readouterr().err


def test_an_op_is_run_by_one_thread_and_by_two() -> None:
    x = torch.randn(64, 96)
    case = Case("softmax", lambda: ops.Op(lambda x: torch.softmax(x + 1, -1)), (x,), {})
    module = ops.bound_kernels(case, level_of("cpu:host"))
    segments, tensors, kernels, _image = ops.prepared(module, case.args)
    assert kernels == 1
    assert sum(map(ops.nbytes, tensors)) == 2 * 64 * 96 * 4
    for segment in segments:
        tensors[-1].zero_()
        segment.run()
        torch.testing.assert_close(tensors[-1], torch.softmax(x + 1, -1))


def test_ops_have_cases_of_every_dtype() -> None:
    assert set(ops.cases(torch.bfloat16, 64)) == set(ops.cases(torch.float32, 64))
