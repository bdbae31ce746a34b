"""``forgec doctor``: everything that stands in the way of a model, in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.command import forgec

BLOCKED = """
import torch

class Blocked(torch.nn.Module):
    def forward(self, x):
        y = x + 1
        if y.sum() > 0:  # first
            y = y * 2
        z = torch.zeros(int(x.argmax()))  # second
        w = x.to_sparse()  # third
        q = x.to(torch.float8_e5m2fnuz).float()  # fourth
        return y, z, q, w.to_dense()

model = Blocked()
example_inputs = (torch.ones(4, 3),)
"""

FALLS_BACK = """
import torch

def model(x):
    return torch.linalg.qr(x)[0].det() + torch.linalg.qr(x * 2)[1]

example_inputs = (torch.eye(3),)
"""

CLEAN = """
import torch
model = torch.nn.Linear(3, 4)
example_inputs = (torch.ones(2, 3),)
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "model.py"
    path.write_text(text)
    return path


def examined(path: Path) -> tuple[dict[str, Any], str]:
    """What the command says of a model, as data and as text; its exit code says whether the model compiles."""
    as_json, as_text = forgec("doctor", path, "--json"), forgec("doctor", path)
    assert as_json.code == as_text.code == int(not as_json.json["compiles"])
    return as_json.json, as_text.out


def line_of(path: Path, words: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if line.endswith(words))


def test_every_blocker_is_listed_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, BLOCKED)
    found, text = examined(path)
    assert found["compiles"] is False
    assert found["fallbacks"] == []
    assert found["unseen"] is None
    lines = {blocker["location"]["line"] for blocker in found["blockers"]}
    assert lines >= {line_of(path, f"# {word}") for word in ("first", "second", "third", "fourth")}
    assert {blocker["code"] for blocker in found["blockers"]} == {"FORGE-C001", "FORGE-C004"}
    assert f"does not compile: {len(found['blockers'])} blockers" in text


BLOCKED_EARLY = """
import torch

class Early(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # decides
            x = x * 2
        first = torch.from_numpy(x.numpy() + 1)  # leaves torch
        branch = torch.cond(x.sum() > 0, lambda v: v.double(), lambda v: v - 1, (x,))  # two dtypes
        print(x.data_ptr())  # asks for the address
        later = x.to_sparse().to_dense()  # sparse
        return first, branch, later, torch.linalg.qr(x)[0], {1, 2}  # falls back

model = Early()
example_inputs = (torch.eye(3),)
"""


def test_what_torch_cannot_trace_hides_nothing_behind_it(tmp_path: Path) -> None:
    path = write(tmp_path, BLOCKED_EARLY)
    result = forgec("doctor", str(path))
    assert result.code == 1
    for words in ("decides", "leaves torch", "two dtypes", "asks for the address", "sparse"):
        assert f"--> model.py:{line_of(path, f'# {words}')} in Early.forward" in result.out, words
    assert "an output is a set" in result.out
    assert "does not compile: 6 blockers" in result.out
    assert "fallback: aten::linalg_qr, at 1 place" in result.out
    assert "not looked at" not in result.out


def test_what_was_not_looked_at_is_said(tmp_path: Path) -> None:
    text = """
import torch

def model(x):
    y = x.numpy()  # first
    raise ValueError("never")  # the end

example_inputs = (torch.eye(3),)
"""
    path = write(tmp_path, text)
    result = forgec("doctor", str(path))
    assert result.code == 1
    end = line_of(path, "# the end")
    rest = f"the rest of the model past model.py:{end}"
    assert f"{rest} was not looked at" in result.out
    assert "does not compile: 2 blockers" in result.out
    assert json.loads(forgec("doctor", str(path), "--json").out)["unseen"] == rest


def test_fallbacks_are_listed(tmp_path: Path) -> None:
    found, text = examined(write(tmp_path, FALLS_BACK))
    assert found["compiles"] is True
    assert {"aten::linalg_qr"} <= {fallback["op"] for fallback in found["fallbacks"]}
    assert "compiles" in text
    assert "model.py:5" in text


SEGMENTS = """
import torch

def model(x):
    some = x[x > 0]
    either = torch.cond(x.sum() > 0, lambda v: v[:2], lambda v: v + 1, (x,))
    both = torch.linalg.qr(torch.outer(x, x))[0], torch.linalg.qr(torch.outer(x, -x))[0]
    return some, either, both

example_inputs = (torch.ones(3),)
"""


def test_what_the_compiler_inserts_itself_is_no_fallback(tmp_path: Path) -> None:
    path = write(tmp_path, SEGMENTS)
    text = forgec("doctor", str(path)).out
    assert "aten::alias" not in text
    assert "fallback: aten::index.Tensor, at 1 place," in text
    assert "fallback: aten::linalg_qr, 2 operations at 1 place," in text
    assert text.strip().endswith("compiles, 3 operations fall back")
    artifact = tmp_path / "model.forge"
    assert forgec("compile", str(path), "-o", str(artifact)).code == 0
    shown = forgec("inspect", str(artifact)).out
    assert "forge::" not in shown
    assert "step of control" in shown


def test_nothing_stands_in_the_way(tmp_path: Path) -> None:
    found, text = examined(write(tmp_path, CLEAN))
    assert (found["blockers"], found["fallbacks"]) == ([], [])
    assert text.strip().endswith("compiles, 0 operations fall back")


def test_bad_files_and_options_are_refused() -> None:
    assert forgec("doctor", "nowhere.py").code == 1
    assert "FORGE-U001" in forgec("doctor", "nowhere.py").err


def test_capture_reports_all_blockers_at_once(tmp_path: Path) -> None:
    text = BLOCKED.replace("if y.sum() > 0:", "if True:").replace("int(x.argmax())", "3")
    result = forgec("compile", str(write(tmp_path, text)), "-o", str(tmp_path / "m.forge"))
    assert result.code == 1
    assert result.err.count("error[FORGE-C004]") == 2
    assert not (tmp_path / "m.forge").exists()


def test_a_model_that_resizes_its_buffer(tmp_path: Path) -> None:
    text = """
import torch

class Resizing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b", torch.zeros(3))

    def forward(self, x):
        self.b.resize_(5)
        if x.sum() > 0:
            x = x + 1
        return x

model = Resizing()
example_inputs = (torch.ones(3),)
"""
    result = forgec("doctor", str(write(tmp_path, text)))
    assert result.code == 1
    assert "internal error" not in result.out + result.err


CHANGES = """
import torch

N = 0

class Counter(torch.nn.Module):
    h = None

    def forward(self, x):
        global N
        N += 1
        self.h = x
        DECIDES
        return x + 1

model = Counter()
example_inputs = (torch.ones(2),)
"""


def test_what_the_model_changes_is_listed(tmp_path: Path) -> None:
    for line, code in (("pass", 0), ("x = x + 1 if x.sum() > 0 else x", 1)):
        path = write(tmp_path, CHANGES.replace("DECIDES", line))
        finished = forgec("doctor", path, "--json")
        assert finished.code == code
        assert [w["message"].split("'")[1] for w in finished.json["warnings"]] == ["h", "N"]
        assert "FORGE-C007" in forgec("doctor", path).out
