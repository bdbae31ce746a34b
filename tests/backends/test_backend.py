"""The ATen backend: it makes of every op's example a plan that gives what the op means, and is found by its target."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

from forgec.backends.aten.table import LOWERINGS
from forgec.backends.base import Backend, backend_for, backends
from forgec.diagnostics import ForgeError
from forgec.ir.context import context
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.interpreter import interpret
from forgec.ir.ops.aten import AtenOp
from forgec.ir.plan_interpreter import interpret_plan
from forgec.passes.manager import run_pipeline
from tests.ir.build import parse, random_inputs
from tests.oracle import assert_close, lower, program_of, tensor_leaves


def lowerable() -> Iterator[str]:
    """The examples that are functions whose inputs say every dynamic extent; numbers made from nothing are static."""
    for text in FORGE_EXAMPLES:
        if "forge.iota" in text:
            text = re.sub(r"\?(x\w+), #forge\.tensor<\[s0\]>", r"4\1", text).replace("s0", "4")
        if (" = " in text or text.startswith("func.")) and not ("forge.full" in text and "s0" in text):
            yield text


EXAMPLES = [pytest.param(text, id=f"{i}-{op_name(text)}") for i, text in enumerate(lowerable())]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_plan_of_every_example_gives_what_the_op_means(text: str) -> None:
    module = parse(f'forge.symbol @s0 "length" min 1\n{module_of(text)}')
    inputs = random_inputs(module)
    if "grouped_matmul" in text:  # rows after the last end have no meaning
        inputs[2] = inputs[2].clamp(0, len(inputs[0])).sort().values
        inputs[2][-1] = len(inputs[0])
    params = {"weight": torch.randn(8, 4)}
    expected = interpret(module, inputs, params)
    decomposed = module.clone()
    run_pipeline(decomposed, "decompose", context=context())
    if "forge.state_read" in text:
        params["cache"] = inputs[0]
    lowered = lower(decomposed)
    given = inputs[1:] if "forge.state_read" in text else inputs
    assert_close(interpret_plan(lowered, given, params), expected, rtol=1e-4, atol=1e-5)
    session = program_of(lowered, params).session()
    found = [*tensor_leaves(session(*given)), *session.state_dict().values()]
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_lowering_has_an_example() -> None:
    """So that the test above runs it."""
    text = "\n".join(lowerable())
    assert [cls.name for cls in LOWERINGS if not re.search(rf"{cls.name}\b", text)] == []
    assert AtenOp in LOWERINGS


def test_the_built_in_backend_serves_the_cpu() -> None:
    backend = backend_for("cpu:aten")
    assert isinstance(backend, Backend)
    assert backend is backends()["aten"]
    assert set(backend.lowerings) == set(LOWERINGS)


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ForgeError) as raised:
        backend_for("cpo")
    assert raised.value.code == "FORGE-U003"
    assert "cpu" in str(raised.value)
    assert raised.value.diagnostics[0].help == "did you mean 'cpu'?"
