"""Calls of one program at several levels: eager, compiled, interpreted, on the same arguments and initial state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from forgec.capture.attributes import held_tensors
from forgec.capture.quiet import quiet
from forgec.diagnostics import ForgeError, error
from forgec.ir.attributes import StateType
from forgec.ir.entry import EntryInfo, argument_info
from forgec.ir.locations import location_of
from forgec.ir.ops.aten import AtenOp
from forgec.runtime import tree
from forgec.runtime.plan import Entry, Plan, Reg
from forgec.runtime.signature import Signature, result_names
from forgec.runtime.symbolic import SymExpr


@dataclass
class Outcome:
    """What a call did: the leaves of its result, the contents of its tensor arguments and of the state afterwards."""

    leaves: list[Any]
    arguments: list[Any] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """What a function of a module takes: one tensor for each argument, and values of symbols that no shape tells."""

    tensors: list[Any]
    symbols: dict[str, int] = field(default_factory=dict)


class Contract:
    """How the calls of an entry and the arguments and results of its function correspond."""

    def __init__(self, plan: Plan, entry: Entry, function: FuncOp) -> None:
        self.entry = entry
        self.function = function
        self.signature = Signature(entry, plan.symbols)
        self.info = EntryInfo.of(function)
        arguments = [argument.type for argument in function.body.block.args]
        self.described = [argument_info(function, position) for position in range(len(arguments))]
        held = zip(arguments, self.described, strict=True)
        self.is_session_state = [isinstance(kind, StateType) and not info.inout for kind, info in held]
        self.is_state = [isinstance(kind, StateType) for kind in arguments]
        self.output_names = result_names(entry.out_tree)

    @property
    def tensor_names(self) -> list[str]:
        """Names of what an entry returns as tensors, then of its states, as :func:`evaluate` orders them."""
        leaves = zip(self.output_names, self.info.leaves(len(self.output_names)), strict=False)
        tensors = [name for name, leaf in leaves if isinstance(leaf, (Reg, tuple))]
        return tensors + [info.name for info, held in zip(self.described, self.is_state, strict=True) if held]

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any], params: Mapping[str, Any]) -> Inputs:
        """The arguments of the function for a call; states of a session have their initial values."""
        leaves = self.signature.leaves(tuple(args), kwargs)
        given: dict[int, Any] = {}
        symbols: dict[str, int] = {}
        for leaf, value in zip(self.info.inputs.arguments[0], leaves, strict=True):
            if isinstance(leaf, Reg):
                given[leaf.id] = value
            elif isinstance(leaf, SymExpr):
                symbols[str(leaf)] = int(value)
        rest = iter(given[number] for number in sorted(given))
        kinds = zip(self.is_session_state, self.described, self.function.body.block.args, strict=True)
        tensors = [_initial(info.name, arg, info.zeros, params) if held else next(rest) for held, info, arg in kinds]
        return Inputs(tensors, symbols)

    def outcome(self, results: Sequence[Any]) -> Outcome:
        """What a call would have done whose function yields these results."""
        count = len(results) - sum(self.is_state)
        leaves: list[Any] = []
        for leaf in self.info.leaves(count):
            number = leaf[0] if isinstance(leaf, tuple) and leaf and isinstance(leaf[0], Reg) else leaf
            leaves.append(results[number.id] if isinstance(number, Reg) else None)
        last = iter(results[count:])
        versions = [(position, next(last)) for position, held in enumerate(self.is_state) if held]
        arguments = {position: tensor for position, tensor in versions if not self.is_session_state[position]}
        inputs = [position for position, held in enumerate(self.is_session_state) if not held]
        states = {self.described[p].name: tensor for p, tensor in versions if self.is_session_state[p]}
        return Outcome(leaves, [arguments.get(position) for position in inputs], states)

    def compiled(self, session: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """Call the compiled program with copies of the arguments."""
        args, kwargs = copies((tuple(args), dict(kwargs)))
        with torch.no_grad():
            result = session(*args, entry=self.entry.name, **kwargs)
        leaves = tree.flatten(result)[0]
        return Outcome(leaves, self._tensors(args, kwargs), session.state_dict())

    def eager(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """Call the model itself with copies of the arguments; the tensors that it holds are left as they were.

        Raises FORGE-V004 where the model fails.
        """
        args, kwargs = copies((tuple(args), dict(kwargs)))
        function: Callable[..., Any] = model.module() if isinstance(model, torch.export.ExportedProgram) else model
        held = held_by(function) if isinstance(function, torch.nn.Module) else {}
        names = [info.name for info, state in zip(self.described, self.is_session_state, strict=True) if state]
        before = {name: held[name].detach().clone() for name in names if name in held}
        try:
            with torch.no_grad(), quiet():
                result = function(*args, **kwargs)
            states = {name: held[name].detach().clone() for name in before}
        except ForgeError:
            raise
        except Exception as reason:  # the model is the user's code: it may raise anything
            first = (str(reason).strip().splitlines() or [""])[0]
            raise error("FORGE-V004", f"the model raised {type(reason).__name__}: {first}") from reason
        finally:
            with torch.no_grad():
                for name, tensor in before.items():
                    held[name].copy_(tensor)
        leaves: list[Any] = []
        if not tree.match(self.entry.out_tree, result, leaves):
            leaves = tree.flatten(result)[0]
        return Outcome(leaves, self._tensors(args, kwargs), states)

    def _tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The tensor arguments in the order of the function's."""
        leaves = self.signature.leaves(tuple(args), kwargs)
        pairs = zip(self.info.inputs.arguments[0], leaves, strict=True)
        numbered = {leaf.id: value for leaf, value in pairs if isinstance(leaf, Reg)}
        return [numbered[number] for number in sorted(numbered)]


def held_by(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a module holds, by the names that capture gives them."""
    return {**held_tensors(module), **dict(module.named_buffers()), **dict(module.named_parameters())}


def copies(value: Any) -> Any:
    """The structure with every tensor copied."""
    return _pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def _initial(name: str, argument: Any, zeros: bool, params: Mapping[str, Any]) -> Any:
    from forgec.ir import types
    from forgec.runtime.dtypes import torch_dtype
    from forgec.runtime.extents import static

    if zeros and name not in params:
        kind = argument.type.value
        return torch.zeros(static(types.shape(kind)), dtype=torch_dtype(types.dtype(kind)))
    return params[name]


def entry_function(module: ModuleOp, name: str) -> FuncOp:
    """The function of an entry."""
    return next(op for op in module.ops if isinstance(op, FuncOp) and op.sym_name.data == name)


def refuse_random(module: ModuleOp) -> None:
    """FORGE-V002 for a program that draws random numbers: two runs of it differ, right or wrong."""
    drawing = [op for op in module.walk() if isinstance(op, AtenOp) and op.draws_random]
    if drawing:
        raise error(
            "FORGE-V002",
            f"the model draws random numbers with {drawing[0].callee.data}, so that no two calls of it agree",
            location=location_of(drawing[0]),
            help="put it into evaluation mode, model.eval(), or pass it the numbers",
        )
