"""Loads a mutant, uses all of it, and judges what happened."""

from __future__ import annotations

import io
import random
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.runtime import tree
from forgec.runtime.artifact import Verify
from forgec.runtime.aten import to_torch
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.extents import element_span
from forgec.runtime.loader import LoadedModel
from forgec.runtime.plan import Entry, Input, Literal
from forgec.runtime.symbolic import Extent, evaluate
from tools.fuzz import artifact_mutants
from tools.fuzz.artifact_mutants import Mutant
from tools.fuzz.batches import Outcome
from tools.fuzz.guard import Guard, guarded
from tools.fuzz.seeds import Seed, same

SHOWN = ("manifests", "reports", "texts")
"""Kinds of mutants that the command line shows more of than loading reads: it gets more of them."""
LARGEST_INPUT = 1 << 22
"""Elements of an input that is made for a mutant; it is not called with larger ones."""


class ArtifactCase:
    """The cases of one run, by number."""

    def __init__(self, seeds: Sequence[Seed], run_seed: int, folder: Path) -> None:
        self.seeds = seeds
        self.run_seed = run_seed
        self.path = folder / "mutant.forge"

    def kind_of(self, index: int) -> str:
        return artifact_mutants.kind_of(self.run_seed, index)

    def mutant(self, index: int) -> Mutant:
        return artifact_mutants.make(self.seeds, self.run_seed, index)

    def write(self, index: int, folder: Path) -> Path:
        path = folder / f"{self.run_seed}-{index}.forge"
        mutant = self.mutant(index)
        path.write_bytes(mutant.content)
        if mutant.outside is not None:
            (folder / mutant.seed.outside_name).write_bytes(mutant.outside)
        return path

    def __call__(self, index: int) -> Outcome:
        mutant = self.mutant(index)
        self.path.write_bytes(mutant.content)
        if mutant.outside is not None:
            (self.path.parent / mutant.seed.outside_name).write_bytes(mutant.outside)
        draw = random.Random(f"{self.run_seed}/{index}/use")
        warnings.simplefilter("ignore")
        with guarded() as guard:
            try:
                outcome = self._judge(mutant, draw, guard)
            except ForgeError as reason:
                str(reason)
                finding = "an internal error" if reason.code.startswith("FORGE-X") else ""
                outcome = Outcome(mutant.kind, f"refused, {reason.code}", finding and f"{finding}: {reason}")
            except Exception:
                outcome = Outcome(mutant.kind, "another exception", traceback.format_exc())
            broken = guard.broken()
        if not outcome.finding and draw.random() < (0.3 if mutant.kind in SHOWN else 0.05):
            outcome = self._command_line(mutant, draw) or outcome
        return Outcome(mutant.kind, "memory", broken) if broken else outcome

    def _judge(self, mutant: Mutant, draw: random.Random, guard: Guard) -> Outcome:
        untouched = (mutant.content, mutant.outside) == (mutant.seed.content, mutant.seed.outside)
        verify: Verify = "full" if draw.random() < 0.3 else "fast"
        model = forgec.load(self.path, threads=1, verify=verify)
        if not mutant.called:
            _use_the_rest(model)
            return Outcome(mutant.kind, "loaded")
        right = _answers_are_right(model, mutant.seed, guard, tolerant=mutant.rewritten)
        if not right and not mutant.rewritten and verify == "full":
            return Outcome(mutant.kind, "wrong answer", "a wrong answer from an artifact that a full check accepted")
        if not right and not mutant.rewritten and not _only_weights_differ(mutant, model):
            return Outcome(mutant.kind, "wrong answer", "a wrong answer, and other bytes than the weights' differ")
        _use_the_rest(model)
        if mutant.rewritten:
            _call_as_it_wants(model, draw, guard)
            return Outcome(mutant.kind, "ran as another program")
        return Outcome(mutant.kind, "untouched" if untouched else "right" if right else "other weights")

    def _command_line(self, mutant: Mutant, draw: random.Random) -> Outcome | None:
        """What people see of it: never a traceback."""
        from forgec.cli import run

        uses = [["inspect"], ["inspect", "--json"], ["run"], ["run", "--json"]]
        arguments = draw.choice(uses if mutant.called else uses[:2])
        out, err = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = run([arguments[0], str(self.path), *arguments[1:]])
        except Exception:
            return Outcome(mutant.kind, "another exception", traceback.format_exc())
        text = out.getvalue() + err.getvalue()
        if code not in (0, 1, 2) or "Traceback" in text or "FORGE-X" in text:
            return Outcome(mutant.kind, "bad message", f"forgec {' '.join(arguments)} ended with {code}:\n{text}")
        return None


def _answers_are_right(model: LoadedModel, seed: Seed, guard: Guard, *, tolerant: bool) -> bool:
    """Whether the seed's calls have the seed's answers. ``tolerant``: that a call is refused is no matter."""
    right = True
    for (args, kwargs), answer in zip(seed.calls, seed.answers, strict=True):
        try:
            right = same(answer, model(*map(guard.copy, args), **kwargs)) and right
        except ForgeError as reason:
            _no_internal_error(reason)
            if not tolerant:
                raise
            right = False
    return right


def _no_internal_error(reason: ForgeError) -> None:
    str(reason)
    if reason.code.startswith("FORGE-X"):
        raise reason


def _only_weights_differ(mutant: Mutant, model: LoadedModel) -> bool:
    """Whether the mutant is the seed but for bytes of its tensors."""
    old, new = mutant.seed.content, mutant.content
    if mutant.outside is not None and mutant.seed.outside is not None:
        if old != new:
            return False
        old, new = mutant.seed.outside, mutant.outside
    if len(old) != len(new):
        return False
    weights = model.artifact.weights
    allowed = range(weights._data, weights._start + weights.nbytes)  # pyright: ignore[reportPrivateUsage]
    return all(position in allowed for position in range(len(old)) if old[position] != new[position])


def _use_the_rest(model: LoadedModel) -> None:
    """Everything else that an artifact can be asked for."""
    uses: list[Callable[[], Any]] = [
        lambda: model.report,
        lambda: [model.ir(level) for level in model.artifact.ir_levels],
        lambda: model.session().state_dict(),
        lambda: repr(model),
        lambda: model.peak_bytes(),
    ]
    for use in uses:
        try:
            use()
        except ForgeError as reason:
            _no_internal_error(reason)


def _call_as_it_wants(model: LoadedModel, draw: random.Random, guard: Guard) -> None:
    """Calls every entry with arguments of its own signature, several times: later runs check less."""
    session = model.session()
    for entry in model.artifact.plan.entries:
        for values in (_symbols(model, draw), _symbols(model, draw)):
            for _ in range(2):
                try:
                    leaves = [_leaf(leaf, entry, values, draw, guard) for leaf in entry.inputs]
                    args, kwargs = tree.unflatten(entry.in_tree, leaves)
                    session(*args, entry=entry.name, **kwargs)
                except ForgeError as reason:
                    _no_internal_error(reason)
                except _TooLarge:
                    pass


class _TooLarge(Exception):
    """The mutant takes an input that is not worth its memory."""


def _symbols(model: LoadedModel, draw: random.Random) -> dict[str, int]:
    found: dict[str, int] = {}
    for symbol in model.artifact.plan.symbols:
        highest = 70 if symbol.maximum is None else min(symbol.maximum, symbol.minimum + 70)
        found[symbol.name] = draw.randint(symbol.minimum, max(highest, symbol.minimum))
    return found


def _leaf(leaf: Any, entry: Entry, values: dict[str, int], draw: random.Random, guard: Guard) -> Any:
    if isinstance(leaf, Literal):
        return to_torch(leaf.value)

    def number(extent: Extent) -> int:
        try:
            return evaluate(extent, values)
        except (ZeroDivisionError, KeyError):
            raise _TooLarge from None

    if not isinstance(leaf, int):
        return number(leaf)
    register = entry.registers[leaf]
    assert isinstance(register, Input)
    shape, strides = [*map(number, register.spec.shape)], [*map(number, register.spec.strides)]
    if min([*shape, *strides], default=0) < 0 or max([*shape, *strides], default=0) > LARGEST_INPUT:
        raise _TooLarge
    if element_span(shape, strides) > LARGEST_INPUT or register.device != "cpu":
        raise _TooLarge
    tensor = guard.empty_strided(shape, strides, dtype=torch_dtype(register.spec.dtype))
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    values_of = torch.randint(0, 3, shape, generator=generator)
    return tensor.copy_(values_of) if 0 not in strides else tensor.zero_()
