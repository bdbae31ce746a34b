"""Changes to a plan that look as if a compiler had made them: they reach the checks behind the first ones."""

from __future__ import annotations

import copy
import random
from typing import Any

from forgec.runtime.dtypes import ITEMSIZE
from tools.fuzz import json_mutants

OPS = (
    "aten::add.out", "aten::mul.out", "aten::relu.out", "aten::mm.out", "aten::bmm.out", "aten::addmm.out",
    "aten::cat.out", "aten::index.Tensor_out", "aten::index_select.out", "aten::gather.out",
    "aten::scatter.src_out", "aten::index_put_", "aten::index_copy_", "aten::index_add_", "aten::embedding",
    "aten::embedding.out", "aten::as_strided", "aten::as_strided_", "aten::as_strided_copy.out", "aten::resize_",
    "aten::set_", "aten::set_.source_Storage", "aten::nonzero", "aten::nonzero.out",
    "aten::repeat_interleave.Tensor", "aten::convolution", "aten::max_pool2d_with_indices.out",
    "aten::native_layer_norm", "aten::layer_norm", "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::topk", "aten::topk.values", "aten::sort",
    "aten::cumsum.out", "aten::unfold", "aten::view", "aten::t_", "aten::squeeze_", "aten::transpose_",
    "aten::split.Tensor", "aten::unbind.int", "aten::empty.memory_format", "aten::zeros.out",
    "aten::arange.start_out", "aten::bincount", "aten::histc.out", "aten::masked_scatter_", "aten::put_",
    "aten::take.out", "aten::fill_.Scalar", "aten::copy_", "aten::_to_copy", "aten::to.dtype", "aten::clone.out",
    "aten::contiguous", "aten::upsample_nearest2d.out", "aten::grid_sampler_2d", "aten::_embedding_bag",
    "aten::lstm.input", "aten::from_file", "aten::save", "aten::tensordot.out", "aten::searchsorted.Tensor_out",
    "aten::bernoulli_.float", "aten::normal_", "aten::fft_fft.out", "aten::linalg_inv.out", "aten::_softmax.out",
    "aten::_unsafe_index.Tensor", "aten::detach_", "aten::_local_scalar_dense", "aten::item", "aten::equal",
    "aten::is_same_size", "aten::max_unpool2d.out", "aten::col2im.out", "aten::segment_reduce",
    "aten::ctc_loss.IntList", "aten::quantize_per_tensor", "aten::sparse_coo_tensor.size", "aten::to_mkldnn",
    "aten::_cslt_compress", "prim::device", "c10d::send", "forge::x", "kernel::double_it", "quantized::add",
    "mkldnn::_convolution_pointwise",
)  # fmt: skip
"""Operations that a plan may name: ordinary ones, ones that must be refused, ones that are careless."""


def mutate_plan(plan: dict[str, Any], draw: random.Random) -> None:
    """One or a few changes, in place."""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        change = draw.choices(list(CHANGES), weights=list(CHANGES.values()))[0]
        try:
            change(plan, draw)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            json_mutants.mutate(plan, draw)  # an earlier change has taken away what this one needs


def _entry(plan: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    return draw.choice(plan["entries"])


def _blind(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.mutate(plan, draw)


def _blind_register(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.mutate(draw.choice(_entry(plan, draw)["registers"]), draw)


def _blind_launch(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.mutate(draw.choice(_entry(plan, draw)["launches"]), draw)


def _field(plan: dict[str, Any], draw: random.Random) -> None:
    """A number of a register, with what a check might forget."""
    entry = _entry(plan, draw)
    register = draw.choice(entry["registers"])
    number = draw.choice([0, 1, 63, 64, 128, 1 << 31, 1 << 40, (1 << 62) - 64, (1 << 63) - 64, -64])
    numeric = [key for key in ("nbytes", "offset", "first", "last", "base", "index") if key in register]
    if numeric and draw.random() < 0.6:
        key = draw.choice(numeric)
        register[key] = draw.choice([json_mutants.nearby(register[key], draw), number])
    else:
        shape = register["shape"]
        axis = draw.randrange(len(shape))
        shape[axis] = draw.choice([json_mutants.nearby(shape[axis], draw), number])


def _strides(plan: dict[str, Any], draw: random.Random) -> None:
    register = draw.choice(_entry(plan, draw)["registers"])
    rank = len(register["shape"])
    register["strides"] = [draw.choice([0, 1, 1, 2, 8, 64, 1 << 31, 1 << 60, "s0", "s0 * 8"]) for _ in range(rank)]


def _dtype(plan: dict[str, Any], draw: random.Random) -> None:
    draw.choice(_entry(plan, draw)["registers"])["dtype"] = draw.choice(list(ITEMSIZE))


def _every_dtype(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.consistently(plan, draw, lambda value: isinstance(value, str) and value in ITEMSIZE)


def _every_number(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.consistently(
        _entry(plan, draw)["registers"], draw, lambda value: isinstance(value, int) and value is not True
    )


def _every_expression(plan: dict[str, Any], draw: random.Random) -> None:
    json_mutants.consistently(plan, draw, lambda value: isinstance(value, str) and "s0" in value)


def _kind(plan: dict[str, Any], draw: random.Random) -> None:
    """Another kind of register, with the fields that it needs."""
    entry = _entry(plan, draw)
    register = draw.choice(entry["registers"])
    for key in ("name", "index", "inout", "zeros", "nbytes", "offset", "first", "last", "base"):
        register.pop(key, None)
    kind = draw.choice(["input", "param", "state", "buffer", "output", "external", "view"])
    count = len(entry["launches"])
    fields: dict[str, dict[str, Any]] = {
        "input": {"index": 0, "name": "x", "inout": draw.random() < 0.5},
        "param": {"name": draw.choice(["x", "up.weight", "rows"])},
        "state": {"name": draw.choice(["x", "rows", "count"]), "zeros": draw.random() < 0.7},
        "buffer": {
            "nbytes": draw.choice([64, 512, 4096]),
            "offset": draw.choice([None, 0, 64]),
            "first": 0,
            "last": count,
        },
        "output": {},
        "external": {"first": draw.randrange(count), "last": count},
        "view": {"base": draw.randrange(len(entry["registers"])), "offset": draw.choice([0, 1, 8, "s0"])},
    }
    register["kind"] = kind
    register.update({key: value for key, value in fields[kind].items() if value is not None})


def _argument(plan: dict[str, Any], draw: random.Random) -> None:
    """Another value for one argument of a launch."""
    launch = draw.choice(_entry(plan, draw)["launches"])
    target = draw.choice([part for part in (launch.get("args"), launch.get("kwargs")) if part])
    keys = list(target) if isinstance(target, dict) else range(len(target))
    key = draw.choice(list(keys))
    target[key] = draw.choice(
        [json_mutants.nearby(target[key], draw), copy.deepcopy(draw.choice(json_mutants.SUBSTITUTES))]
    )


def _register_of_an_argument(plan: dict[str, Any], draw: random.Random) -> None:
    entry = _entry(plan, draw)
    launch = draw.choice(entry["launches"])
    references = [value for container, key in json_mutants.places(launch) if _is_reg(value := container[key])]
    old = draw.choice(references)
    number, new = old["reg"], draw.randrange(len(entry["registers"]))
    old["reg"] = new
    if number in launch.get("writes", ()) and draw.random() < 0.7:
        launch["writes"] = [new if target == number else target for target in launch["writes"]]


def _is_reg(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["reg"]


def _operation(plan: dict[str, Any], draw: random.Random) -> None:
    entry = _entry(plan, draw)
    launch = draw.choice(entry["launches"])
    launch["op"] = draw.choice([draw.choice(OPS), draw.choice(entry["launches"])["op"]])


def _whole_launch(plan: dict[str, Any], draw: random.Random) -> None:
    """Another call with arguments that fit it roughly."""
    entry = _entry(plan, draw)
    position = draw.randrange(len(entry["launches"]))
    launch = entry["launches"][position]
    registers = entry["registers"]
    count = draw.choice([1, 2, 3, 3, 4, 6])
    args: list[Any] = [{"reg": draw.randrange(len(registers))} for _ in range(count)]
    args = [draw.choice([arg, arg, draw.choice([0, 1, -1, [0], [1, 1], None, True, 1 << 40])]) for arg in args]
    launch["op"] = draw.choice(OPS)
    launch["args"] = args
    if launch["op"].endswith("out") and launch.get("writes"):
        launch["kwargs"] = (
            {"out": {"reg": launch["writes"][0]}}
            if isinstance(launch.get("kwargs"), dict)
            else [["out", {"reg": launch["writes"][0]}]]
        )
    else:
        launch.pop("kwargs", None)
        if draw.random() < 0.5:
            launch["writes"] = [arg["reg"] for arg in args if _is_reg(arg)][:1]


def _order(plan: dict[str, Any], draw: random.Random) -> None:
    launches = _entry(plan, draw)["launches"]
    first, second = draw.randrange(len(launches)), draw.randrange(len(launches))
    launches[first], launches[second] = launches[second], launches[first]


def _offsets(plan: dict[str, Any], draw: random.Random) -> None:
    """Buffers that lie on each other, or an arena that is too small."""
    entry = _entry(plan, draw)
    buffers = [register for register in entry["registers"] if register["kind"] == "buffer"]
    if draw.random() < 0.3:
        entry["arena_bytes"] = draw.choice([0, 1, 64, None, 1 << 40, (1 << 63) - 1])
    elif draw.random() < 0.3:
        for register in buffers:
            register["offset"] = 0
    else:
        draw.choice(buffers)["offset"] = draw.choice(buffers).get("offset", 0)


def _device(plan: dict[str, Any], draw: random.Random) -> None:
    device = draw.choice(
        ["meta", "cuda:0", "cuda", "cpu:0", "cpu:1", "mps", "xla", "mkldnn", "privateuseone", "hpu", "lazy"]
    )
    entry = _entry(plan, draw)
    chosen = entry["registers"] if draw.random() < 0.5 else [draw.choice(entry["registers"])]
    for register in chosen:
        register["device"] = device


def _structure(plan: dict[str, Any], draw: random.Random) -> None:
    """Classes and keys of arguments and results."""
    entry = _entry(plan, draw)
    classes = [
        "collections:OrderedDict",
        "os:system",
        "builtins:dict",
        "a.b:C.<locals>.D",
        "forgec.runtime.tree:Record",
    ]
    classes += [
        "tools.fuzz.seeds:Seed",
        "forgec.runtime.plan:SymbolDecl",
        "torch:Size",
        "pathlib:Path",
        "x",
        ":",
        "é:ß",
    ]
    kind = draw.choice(["namedtuple", "dataclass", "model_output", "dict", "list", "tuple"])
    count = len(entry["outputs"])
    keys = draw.choice(
        [["a", "b", "c", "d"], ["name", "label", "minimum", "maximum"], ["a", "a"], ["_x", "class"], [1, None]]
    )
    children: list[Any] = ["*"] * count
    if kind in ("list", "tuple"):
        entry["out_tree"] = {kind: children}
        return
    structure: dict[str, Any] = {kind: [[key, "*"] for key in (keys * 4)[:count]]}
    if kind != "dict":
        structure["class"] = draw.choice(classes)
        if draw.random() < 0.5:
            structure["absent"] = keys[count:]
    entry["out_tree"] = structure


def _leaves(plan: dict[str, Any], draw: random.Random) -> None:
    entry = _entry(plan, draw)
    which = entry[draw.choice(["inputs", "outputs"])]
    which[draw.randrange(len(which))] = draw.choice(
        [
            {"reg": draw.randrange(len(entry["registers"]))},
            {"literal": draw.choice([None, 1, "x", [1, 2]])},
            {"expr": "s0"},
            {"expr": "s0 // 2"},
        ]
    )


def _symbols(plan: dict[str, Any], draw: random.Random) -> None:
    symbol = draw.choice(plan["symbols"])
    symbol[draw.choice(["minimum", "maximum"])] = draw.choice([None, 0, 1, 3, 1 << 31, 1 << 62, (1 << 63) - 1])


def _called(plan: dict[str, Any], draw: random.Random) -> None:
    """Another entry for one that is called, other tensors for it, or other symbols that it is told."""
    names = [entry["name"] for entry in plan["entries"]]
    found = [(entry, launch) for entry in plan["entries"] for launch in entry["launches"]]
    entry, launch = draw.choice([pair for pair in found if pair[1]["op"].startswith("forge::")])
    registers = {"reg": draw.randrange(len(entry["registers"]))}
    args = launch["args"]
    match draw.randrange(7):
        case 0:
            place = draw.choice([i for i, arg in enumerate(args) if isinstance(arg, dict) and "entry" in arg])
            args[place] = {"entry": draw.choice([*names, "nobody"])}
        case 1:
            tensors = draw.choice([arg for arg in args if isinstance(arg, list)])
            tensors[draw.randrange(len(tensors) + 1) :] = [registers] * draw.randrange(3)
        case 2:
            tensors = draw.choice([arg for arg in args if isinstance(arg, list) and arg])
            tensors[draw.randrange(len(tensors))] = registers
        case 3:
            launch["defines"] = draw.choice([[], ["u0"], ["s0"], ["u0", "u0"], [None, "u0"]])
        case 4:
            chosen = draw.choice(plan["entries"])
            chosen["given"] = draw.choice([[], ["u0"], ["s0"], ["u0", "s0"], ["x"]])
            chosen["private"] = draw.random() < 0.7
        case 5:
            body, bounds = {"entry": draw.choice(names)}, [draw.choice([0, 1, -1, 3, {"expr": "u0"}]) for _ in range(3)]
            calls = [
                ("forge::item", [registers]),
                ("forge::assert", [registers, "text"]),
                ("forge::call", [body, [registers]]),
                ("forge::for", [body, *bounds, [registers], []]),
                ("forge::while", [body, body, [registers], [], []]),
                ("forge::if", [registers, body, [registers], body, [registers]]),
            ]
            launch["op"], launch["args"] = draw.choice(calls)
        case _:
            json_mutants.mutate(launch["results"], draw)


def _interface(plan: dict[str, Any], draw: random.Random) -> None:
    """Inputs or results of an entry that others call, which are no longer what these give and take."""
    entry = draw.choice([entry for entry in plan["entries"] if entry.get("private")])
    inputs = [register for register in entry["registers"] if register["kind"] in ("input", "output", "external")]
    register = draw.choice(inputs)
    match draw.randrange(5):
        case 0:
            register["dtype"] = draw.choice(list(ITEMSIZE))
        case 1:
            register["shape"] = [draw.choice([0, 1, 2, 6, 100, "u0", "u0 + 1"]) for _ in register["shape"]]
        case 2:
            register["shape"] = [extent * 50 if isinstance(extent, int) else extent for extent in register["shape"]]
        case 3:
            register["inout"] = True
        case _:
            register["strides"] = [draw.choice([0, 1, 6, 100]) for _ in register["shape"]]


def _second_entry(plan: dict[str, Any], draw: random.Random) -> None:
    other = copy.deepcopy(plan["entries"][0])
    other["name"] = "other"
    plan["entries"].append(other)
    json_mutants.mutate(other, draw)


CHANGES = {
    _blind: 3, _blind_register: 3, _blind_launch: 3, _field: 3, _strides: 2, _dtype: 2, _every_dtype: 1,
    _every_number: 3, _every_expression: 1, _kind: 2, _argument: 3, _register_of_an_argument: 4, _operation: 3,
    _whole_launch: 3, _order: 1, _offsets: 2, _device: 1, _structure: 1, _leaves: 1, _called: 2,
    _interface: 2, _symbols: 1, _second_entry: 1,
}  # fmt: skip
"""How often each change is made."""
