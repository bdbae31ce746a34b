"""Model files for ``forgec compile``: Python source and exported programs, changed; the command must end politely."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import traceback
import warnings
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tools.fuzz import json_mutants
from tools.fuzz.batches import Outcome
from tools.fuzz.seeds import Attention, Cache, Mlp

SOURCES = (
    """import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x, scale: float = 2.0):
        y = torch.relu(self.linear(x)) * scale
        self.seen.add_(y.sum(0))
        return {"y": y, "top": torch.topk(y, 2).values}


model = Model().eval()
example_inputs = (torch.randn(2, 4),)
example_kwargs = {"scale": 1.5}
""",
    """import torch


def model(x, y=None):
    if y is not None:
        x = x + y
    parts = x.split(2, dim=1)
    return torch.cat([p.softmax(-1) for p in parts], 1), x.shape[0]


example_inputs = (torch.randn(3, 4), torch.ones(4))
dynamic_shapes = ({0: torch.export.Dim("rows", min=2, max=9)}, None)
""",
)

_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)
_WORDS = [
    "0", "1", "-1", "None", "x", "y", "self", "torch", "(", ")", "[", "]", ",", ":", ".", "=", "return", "if",
    "for", "lambda: 0", "3.5", "torch.zeros(0)", "object()", "'text'", "raise ValueError", "yield", "\n", "    ",
    "@", "*", "**", "é", "\x00", "10 ** 30", "{}", "()",
]  # fmt: skip


class ModelCase:
    """The cases of one run, by number."""

    def __init__(self, run_seed: int, folder: Path) -> None:
        self.run_seed = run_seed
        self.folder = folder
        torch.set_num_threads(1)
        torch.manual_seed(0)
        tokens = torch.randint(0, 32, (2, 5))
        calls = [
            (Mlp(), (torch.randn(4, 8),)),
            (Attention(), (tokens,)),
            (Cache(), (torch.randn(1, 4), torch.tensor([1]))),
        ]
        self.programs: list[bytes] = []
        for model, args in calls:
            stream = io.BytesIO()
            torch.export.save(torch.export.export(model.eval(), args), stream)
            self.programs.append(stream.getvalue())
        self._compile_one()

    def _compile_one(self) -> None:
        """Imports what a compilation needs before the processes are forked."""
        path = self.folder / "sound.py"
        path.write_text(SOURCES[0])
        code, text = self._command(path)
        if code:
            raise AssertionError(text)

    def kind_of(self, index: int) -> str:
        return random.Random(f"{self.run_seed}/{index}/kind").choice(["source", "program", "program's JSON"])

    def write(self, index: int, folder: Path) -> Path:
        kind, draw = self.kind_of(index), random.Random(f"{self.run_seed}/{index}")
        path = folder / f"{self.run_seed}-{index}{'.py' if kind == 'source' else '.pt2'}"
        if kind == "source":
            path.write_text(_source(draw), encoding="utf-8", errors="surrogatepass")
        elif kind == "program":
            path.write_bytes(_flipped(draw.choice(self.programs), draw))
        else:
            path.write_bytes(_with_other_json(draw.choice(self.programs), draw))
        return path

    def _command(self, path: Path) -> tuple[int, str]:
        from forgec.cli import run

        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run(["compile", str(path), "-o", str(self.folder / "out.forge")])
        return code, out.getvalue() + err.getvalue()

    def __call__(self, index: int) -> Outcome:
        kind = self.kind_of(index)
        path = self.write(index, self.folder)
        warnings.simplefilter("ignore")
        try:
            code, text = self._command(path)
        except BaseException:
            return Outcome(kind, "another exception", traceback.format_exc())
        finally:
            path.unlink()
        if "Traceback (most recent" in text:
            return Outcome(kind, "traceback", text)
        if kind == "program's JSON" and "FORGE-X001" in text:
            return Outcome(kind, "refused, FORGE-X001")  # torch loads graphs that contradict themselves
        if code not in (0, 1, 2) or "FORGE-X" in text:
            return Outcome(kind, "internal error", f"exit code {code}\n{text}")
        codes = re.findall(r"FORGE-[A-Z]\d+", text)
        if code and not codes and code != 2:
            return Outcome(kind, "no code", f"exit code {code}\n{text}")
        return Outcome(kind, "compiled" if code == 0 else f"refused, {codes[0] if codes else 'usage'}")


def _source(draw: random.Random) -> str:
    tokens = _TOKEN.findall(draw.choice(SOURCES))
    for _ in range(draw.choice([1, 1, 2, 3])):
        start = draw.randrange(len(tokens))
        if draw.random() < 0.6 and (tokens[start].isalnum() or not tokens[start].isspace()):
            tokens[start] = draw.choice([token for token in tokens if _kind(token) == _kind(tokens[start])])
            continue
        match draw.randrange(5):
            case 0:
                del tokens[start]
            case 1:
                tokens[start] = draw.choice(_WORDS)
            case 2:
                tokens.insert(start, draw.choice(_WORDS))
            case 3:
                tokens[start] = draw.choice(tokens)
            case _:
                tokens[start : start + 2] = tokens[start : start + 2][::-1]
    return "".join(tokens)


def _kind(token: str) -> str:
    return "number" if token.isdigit() else "name" if token.isidentifier() else "mark"


def _flipped(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 3, 30])):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _swap(data: Any, draw: random.Random) -> None:
    """One value becomes another of its type that stands under the same key: most of these can be read."""
    known = [(container, key) for container, key in json_mutants.places(data) if isinstance(container, dict)]
    if not known:
        return
    container, key = draw.choice(known)
    like = [other[name] for other, name in known if name == key and type(other[name]) is type(container[key])]
    container[key] = (
        json_mutants.nearby(container[key], draw) if draw.random() < 0.2 else copy.deepcopy(draw.choice(like))
    )


@lru_cache(maxsize=8)
def _members(content: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return tuple((name, archive.read(name)) for name in archive.namelist())


def _with_other_json(content: bytes, draw: random.Random) -> bytes:
    """The exported program's graph changed, in a zip file that is sound."""
    members = _members(content)
    chosen = draw.choice([name for name, data in members if data[:1] == b"{"])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            if name == chosen:
                parsed = json.loads(data)
                for _ in range(draw.choice([1, 1, 2])):
                    json_mutants.mutate(parsed, draw) if draw.random() < 0.3 else _swap(parsed, draw)
                data = json.dumps(parsed).encode(errors="surrogatepass")
            archive.writestr(name, data)
    return stream.getvalue()
