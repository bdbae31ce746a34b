"""Outlined layers: which blocks become functions, that nothing changes but the form, and what it costs."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

import forgec
from forgec.capture.capture import Captured, export_model, import_program
from forgec.diagnostics import Location
from forgec.ir.attributes import StateType
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.locations import UNKNOWN, location_of, to_attribute
from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.ir.verify import verify_module
from forgec.passes import remarks
from forgec.passes.inline_layers import InlineLayers
from forgec.passes.manager import run_pipeline
from forgec.passes.outline_layers import OutlineLayers
from forgec.passes.outlining import LAYER
from tests.backends.graphs import Graph, GraphAuthor
from tests.chooser import Chooser, Drawn, Seeded
from tests.ir.build import text_of

O2 = "canonicalize,constant-fold,cse,canonicalize,group-query-heads,canonicalize,dce"
IDS = torch.arange(7)[None]


def anonymous(module: ModuleOp) -> str:
    """The module's text with locations, and without names of values."""
    copy = module.clone()
    for op in copy.walk():
        values = [*op.results, *(a for region in op.regions for block in region.blocks for a in block.args)]
        for value in values:
            value.name_hint = None
    return text_of(copy, print_debuginfo=True)


def calls(module: ModuleOp) -> dict[str, int]:
    """How often each function is called."""
    return dict(Counter(op.callee.root_reference.data for op in module.walk() if isinstance(op, CallOp)))


def layers(module: ModuleOp) -> list[FuncOp]:
    return [op for op in module.ops if isinstance(op, FuncOp) and LAYER in op.attributes]


def outlined(module: ModuleOp, **options: Any) -> ModuleOp:
    copy = module.clone()
    OutlineLayers(**options).apply(context(), copy)
    verify_module(copy)
    return copy


def inlined(module: ModuleOp) -> ModuleOp:
    copy = module.clone()
    InlineLayers().apply(context(), copy)
    verify_module(copy)
    return copy


def equal(left: list[Any], right: list[Any]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


# Random graphs --------------------------------------------------------------------------------------------------------


def repeated(graph: Graph, times: int, *, named: bool, chooser: Chooser) -> Graph:
    """The graph several times in a row: what it returns goes into the next one where types are the same. Each has
    parameters of its own, and some have an op more.
    """
    source = next(op for op in graph.module.ops if isinstance(op, FuncOp)).body.block
    block = Block(arg_types=source.arg_types)
    current: list[SSAValue] = list(block.args)
    header: list[Operation] = []
    params = {name: value for name, value in graph.params.items() if name.startswith("state")}
    results: list[SSAValue] = []
    for number in range(times):
        values: dict[SSAValue, SSAValue] = dict(zip(source.args, current, strict=True))
        for op in source.ops:
            if isinstance(op, ReturnOp):
                results = [values.get(value, value) for value in op.arguments]
                continue
            copied = op.clone(values)
            if isinstance(copied, ParamRefOp):
                name = copied.param.root_reference.data
                copied.properties["param"] = SymbolRefAttr(f"{name}.{number}")
                properties = {"sym_name": StringAttr(f"{name}.{number}"), "type": copied.result.type}
                header.append(ParamOp.create(properties=properties))
                params[f"{name}.{number}"] = graph.params[name] * (number + 1)
            place = location_of(op)
            if not named or place is None:
                copied.location = UNKNOWN
            else:
                copied.location = to_attribute(Location("m.py", place.line, "B.forward", f"blocks.{number}.inner"))
            block.add_op(copied)
        states = [value for value in results if isinstance(value.type, StateType)]
        tensors = [value for value in results if not isinstance(value.type, StateType)]
        for index, value in enumerate(current):
            if isinstance(value.type, StateType):
                current[index] = states.pop(0)
            else:
                fit = [result for result in tensors if result.type == value.type]
                if fit:
                    current[index] = fit[chooser.integer(0, len(fit) - 1)]
    block.add_op(ReturnOp(*results))
    signature = (list(block.arg_types), [value.type for value in results])
    return Graph(ModuleOp([*header, FuncOp("forward", signature, Region(block))]), graph.inputs, params)


def check(graph: Graph, min_ops: int) -> bool:
    """Outlining keeps every value, inlining gives the same text again; returns if there was something to outline."""
    before = anonymous(graph.module)
    expected = interpret(graph.module, graph.arguments(), graph.params)
    module = outlined(graph.module, min_ops=min_ops)
    assert equal(interpret(module, graph.arguments(), graph.params), expected)
    back = inlined(module)
    found = bool(layers(module))
    assert not layers(back)
    if "forge.at_call" not in text_of(module):
        assert anonymous(back) == before
    run_pipeline(module, "sink-tables", context=context())
    verify_module(module)
    assert equal(interpret(module, graph.arguments(), graph.params), expected)
    return found


def without_states_lost(graph: Graph) -> bool:
    """True if the graph returns every state that it takes, in order: then it can be repeated."""
    function = next(op for op in graph.module.ops if isinstance(op, FuncOp))
    taken = [kind for kind in function.function_type.inputs.data if isinstance(kind, StateType)]
    return taken == [kind for kind in function.function_type.outputs.data if isinstance(kind, StateType)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    chooser = Drawn(data)
    graph = GraphAuthor(chooser).draw(10)
    if without_states_lost(graph):
        named = bool(chooser.integer(0, 1))
        check(repeated(graph, chooser.integer(1, 4), named=named, chooser=chooser), chooser.integer(1, 4))


def test_larger_random_graphs_have_repetitions_that_are_found() -> None:
    found = Counter()
    for seed in range(60):
        chooser = Seeded(seed)
        graph = GraphAuthor(chooser).draw(25)
        if without_states_lost(graph):
            found[check(repeated(graph, 3, named=seed % 2 == 0, chooser=chooser), 3)] += 1
    assert found[True] >= 10


# Models ---------------------------------------------------------------------------------------------------------------


def captured(model: Any, arguments: dict[str, Any], shapes: Any = None) -> Captured:
    program = export_model(model.eval(), (), arguments, shapes)
    return import_program(program, model, (), arguments, shapes)


def transformer(name: str, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return kind(kind.config_class(vocab_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings))


LLAMA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
ALBERT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "embedding_size": 16,
}  # fmt: skip
T5: dict[str, Any] = {"d_model": 32, "d_ff": 48, "num_heads": 4, "d_kv": 8}
DECODER = {"input_ids": IDS, "use_cache": False}
MASKED = {**DECODER, "attention_mask": torch.ones_like(IDS)}
PAIR = {"input_ids": IDS, "decoder_input_ids": IDS + 1, "use_cache": False}

MODELS = [
    pytest.param("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 12, "n_head": 4}, DECODER, {"h": 12}, id="gpt2"),
    pytest.param("LlamaForCausalLM", {**LLAMA, "num_hidden_layers": 9}, MASKED, {"layers": 9}, id="llama"),
    pytest.param(
        "Gemma2ForCausalLM", {**LLAMA, "head_dim": 8, "num_hidden_layers": 6, "sliding_window": 4}, MASKED,
        {"layers": 3, "layers1": 3}, id="gemma2-local-and-global",
    ),
    pytest.param(
        "Gemma3ForCausalLM", {**LLAMA, "head_dim": 8, "num_hidden_layers": 12, "sliding_window": 4}, MASKED,
        {"layers": 10, "layers1": 2}, id="gemma3-five-local-for-one-global",
    ),
    pytest.param(
        "T5ForConditionalGeneration", {**T5, "num_layers": 3}, PAIR, {"block": 3, "block1": 3}, id="t5",
    ),
    pytest.param(
        "AlbertModel", {**ALBERT, "num_hidden_layers": 4},
        {"input_ids": IDS}, {"block": 4}, id="albert-one-layer-called-four-times",
    ),
    pytest.param("MixtralForCausalLM", {**LLAMA, "num_hidden_layers": 3}, DECODER, {"layers": 3}, id="mixtral"),
    pytest.param(
        "LlamaForCausalLM", {**LLAMA, "num_hidden_layers": 32}, MASKED, {"layers": 32}, id="llama-32",
        marks=pytest.mark.wide,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "arguments", "expected"), MODELS)
def test_layers_of_models(name: str, settings: dict[str, Any], arguments: dict[str, Any], expected: Any) -> None:
    found = captured(transformer(name, **settings), arguments)
    module = outlined(found.module)
    assert {name.removeprefix("forward."): count for name, count in calls(module).items()} == expected
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    assert equal(interpret(module, tensors, found.tensors), interpret(found.module, tensors, found.tensors))
    before, after = anonymous(found.module), anonymous(inlined(module))
    if name.startswith("T5"):  # what computes the bias goes before its layer
        assert in_any_order(before) == in_any_order(after)
    else:
        assert before == after


def in_any_order(text: str) -> list[str]:
    return sorted(re.sub(r"%\d+", "%", line) for line in text.splitlines())


def test_locations_say_which_layer() -> None:
    found = captured(transformer("LlamaForCausalLM", **LLAMA, num_hidden_layers=3), DECODER)
    module = outlined(found.module)
    (layer,) = layers(module)
    places = [location_of(op) for op in layer.body.block.ops if not isinstance(op, ReturnOp)]
    assert all(place is not None and place.module.startswith("model.layers.*") for place in places)
    called = [location_of(op) for op in module.walk() if isinstance(op, CallOp)]
    assert [place.module for place in called if place is not None] == [f"model.layers.{i}" for i in range(3)]
    assert all(place is not None and "DecoderLayer" in place.function for place in called)


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize(("name", "settings", "arguments", "expected"), [MODELS[2], *MODELS[4:6]])
def test_passes_make_the_same_of_layers(
    name: str, settings: dict[str, Any], arguments: dict[str, Any], expected: Any, sink: bool
) -> None:
    """Passes between outlining and inlining: as many ops in the end, and the same values."""
    found = captured(transformer(name, **settings), arguments)
    whole, parts = found.module.clone(), found.module.clone()
    run_pipeline(whole, O2, context=context())
    pipeline = f"outline-layers,{'sink-tables,' if sink else ''}{O2}"
    for element in [*pipeline.split(","), "inline-layers", "constant-fold", "cse", "canonicalize", "dce"]:
        run_pipeline(parts, element, context=context())
        verify_module(parts)
    count = Counter(op.name for op in whole.walk())
    assert Counter(op.name for op in parts.walk()) == count
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    assert equal(interpret(parts, tensors, found.tensors), interpret(whole, tensors, found.tensors))


def test_a_model_compiles_with_outlined_layers_to_the_same_plan() -> None:
    model = transformer("LlamaForCausalLM", **LLAMA, num_hidden_layers=3).eval()
    batch, length = forgec.Dim("batch", min=1, max=8), forgec.Dim("length", min=2, max=64)
    shapes = {"input_ids": {0: batch, 1: length}, "use_cache": None}
    arguments = {"input_ids": torch.randint(3, 64, (2, 9)), "use_cache": False}
    plain = forgec.compile(model, (), arguments, dynamic_shapes=shapes, pipeline="")
    compiled = forgec.compile(model, (), arguments, dynamic_shapes=shapes, pipeline="outline-layers")
    assert compiled.ir().count("func.call") == 3
    names = re.compile(r"%[\w.]+")
    assert names.sub("%", compiled.ir("plan", locations=True)) == names.sub("%", plain.ir("plan", locations=True))
    for size in ((2, 9), (1, 33)):
        token_ids = torch.randint(3, 64, size)
        actual = compiled(input_ids=token_ids, use_cache=False).logits
        assert torch.equal(actual, plain(input_ids=token_ids, use_cache=False).logits)


class Functional(torch.nn.Module):
    """Layers without modules of their own, in a loop, whose weights are stacked."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.weights = torch.nn.Parameter(torch.randn(depth, 4, 8, 8) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in range(self.depth):
            x = x + self.mix(torch.nn.functional.layer_norm(x, (8,)), layer)
        return torch.nn.functional.layer_norm(x, (8,))

    def mix(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        weights = self.weights[layer].unbind(0)
        query, key, value = (x @ weight for weight in weights[:3])
        scores = torch.softmax(query @ key.transpose(-1, -2) * 0.3, -1)
        return torch.tanh(scores @ value) @ weights[3]


def test_code_without_modules() -> None:
    found = captured(Functional(5), {"x": torch.randn(3, 8)})
    module = outlined(found.module)
    (layer,) = layers(module)
    assert calls(module) == {layer.sym_name.data: 5}
    x = torch.randn(3, 8)
    assert equal(interpret(module, [x], found.tensors), interpret(found.module, [x], found.tensors))


class Branching(torch.nn.Module):
    """A layer with control flow and an update of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.5).add_(x.mean(0))
        x = torch.relu(self.linear(x)) + self.mean
        return torch.cond(x.sum() > 0, lambda v: torch.sin(v), lambda v: torch.cos(v), (x,))


class Stack(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Branching() for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_control_flow_and_state_in_layers() -> None:
    torch.manual_seed(0)
    model, example = Stack().eval(), {"x": torch.randn(2, 4)}
    assert list(calls(outlined(captured(model, example).module, min_ops=4)).values()) == [3]
    compiled = forgec.compile(model, (), example, pipeline="outline-layers{min-ops=4}")
    plain = forgec.compile(model, (), example, pipeline="")
    for _ in range(3):
        x = torch.randn(2, 4)
        assert torch.equal(compiled(x=x), plain(x=x))


def test_a_layer_that_is_like_no_other_is_named() -> None:
    model = transformer("LlamaForCausalLM", **LLAMA, num_hidden_layers=4)
    model.model.layers[2].mlp.act_fn = torch.nn.Tanh()
    found = captured(model, DECODER)
    with remarks.collected() as emitted:
        module = outlined(found.module)
    assert calls(module) == {"forward.layers": 3}
    (missed,) = [remark for remark in emitted if remark.code == "FORGE-O002"]
    assert missed.message == "model.layers.2 is no model.layers.* like the others"


def test_outlining_twice_changes_nothing() -> None:
    module = outlined(captured(transformer("LlamaForCausalLM", **LLAMA, num_hidden_layers=3), DECODER).module)
    assert anonymous(outlined(module)) == anonymous(module)
