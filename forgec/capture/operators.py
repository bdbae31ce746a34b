"""Calls of operators: said in forge, writes turned into values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import torch
from xdsl.dialects.builtin import AnyTensorType, LocationAttr
from xdsl.ir import SSAValue

from forgec.capture import aten as _rows  # noqa: F401 - registers the tables
from forgec.capture import control_flow
from forgec.capture.aliasing import Handle, UnknownAliasing, copy_of, fresh, view_of, whole
from forgec.capture.call import ROWS, Call, Decline, Schema, schema_of
from forgec.capture.effects import (
    bind,
    functional_form,
    leaves,
    nodes_of,
    per_result,
    returned_operand,
    source_of,
    written_nodes,
)
from forgec.capture.numbers import SYMBOLIC, Number, Step, as_argument, compute, defined, symbolic
from forgec.capture.numbers import result as number_result
from forgec.capture.places import place_of
from forgec.capture.refusals import reshaped_itself
from forgec.capture.values import Blocked, Values, literal
from forgec.diagnostics import ForgeError, error
from forgec.ir import types, unsupported
from forgec.ir.locations import to_attribute
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.unary import CastOp
from forgec.runtime.symbolic import Extent, symbol

IGNORED = ("aten::_assert_tensor_metadata", "aten::sym_constrain_range_for_size", "aten::sym_constrain_range")
"""Checks of what the types already say."""

BY_STRIDES = (
    "as_strided",
    "as_strided_",
    "as_strided_copy",
    "set",
    "set_",
    "resize",
    "resize_",
    "resize_as_",
)
"""Operators that address memory by strides: a value has none, so what no row covers is refused."""

BY_ADDRESS = (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_copy.default)


class Operators(Values):
    """Converts the nodes that call something."""

    def get_attr(self, node: Any) -> None:
        held = operator.attrgetter(node.target)(node.graph.owning_module)
        self.handles[node] = fresh(self.param(node.target, held)) if isinstance(held, torch.Tensor) else held

    def call(self, node: Any) -> None:
        """Convert a node; what cannot be captured is remembered, and so is all that depends on it."""
        if self.blocked.intersection(node.all_input_nodes):
            self.blocked.add(node)
            return
        self.attempt(node, lambda: self._call(node))

    def attempt(self, node: Any, convert: Callable[[], None]) -> None:
        """Convert a node by a function; see ``call``."""
        try:
            convert()
        except ForgeError as failure:
            known = {(d.code, d.message, d.location) for d in self.failures}
            if node.op == "placeholder":
                found = [replace(d, notes=(f"it is the input {node.name!r}", *d.notes)) for d in failure.diagnostics]
            else:
                found = failure.at(place_of(node)).diagnostics
            self.failures += [d for d in found if (d.code, d.message, d.location) not in known]
            self.blocked.add(node)
        except Blocked:
            self.blocked.add(node)

    def _call(self, node: Any) -> None:
        overload = node.target
        value = node.meta.get("val")
        self.location = to_attribute(place_of(node))
        if overload is operator.getitem:
            self.handles[node] = self.handles[node.args[0]][node.args[1]]
            return
        if isinstance(value, SYMBOLIC) and not unsupported.is_of_users(overload):
            self.handles[node] = symbolic(self, node, value)
            return
        if overload is torch.ops.aten.promote_types.default:
            self.handles[node] = torch.promote_types(*node.args)
            return
        if control_flow.convert(self, node):
            return
        if not isinstance(overload, torch._ops.OpOverload):
            name = getattr(overload, "__name__", overload)
            if name == "flex_attention":
                raise unsupported.EXPORTED.error(f"the operator {name}")
            if isinstance(overload, torch._ops.HigherOrderOperator):
                raise unsupported.ON_FUNCTIONS.error(f"the operator {name}")
            raise error("FORGE-C003", f"the operation {name} cannot be captured", location=place_of(node))
        if overload.name() in IGNORED:
            return
        if overload.name() in control_flow.ASSERTS:
            control_flow.check(self, node)
            return
        try:
            if overload is torch.ops.aten.set_.source_Tensor:
                self.handles[node] = self._rebound(node, self.handles[node.args[1]])
            elif overload in (torch.ops.aten.resize_.default, torch.ops.aten.resize_as_.default):
                self.handles[node] = self._rebound(node, self._resized(node))
            elif torch.Tag.inplace_view in overload.tags:
                self._rebound(node, self.handles[node.args[0]])
                self._operator(node, functional_form(overload)[0] or overload)
            elif schema_of(overload).writes:
                self._write(node, overload, schema_of(overload), self.location)
            else:
                self._operator(node, overload)
        except UnknownAliasing as reason:
            raise error("FORGE-C005", f"{overload.name()}: {reason}", location=place_of(node)) from None

    def _operator(self, node: Any, overload: Any) -> None:
        """A call of an operator that writes nothing."""
        schema = schema_of(overload)
        value = node.meta.get("val")
        values = leaves(value)
        arguments = bind(schema, node)
        operand = returned_operand(overload, arguments)
        if operand is not None:
            self.handles[node] = self.handles[operand]
            return
        seen = self.arguments(overload, arguments)
        if overload is torch.ops.aten.as_strided_scatter.default:
            self._scattered(node, seen)
            return
        if overload in BY_ADDRESS:
            self._addressed(node, overload, seen)
            return
        call = Call(self, overload, seen, self.result_types(value), self.location)
        results = self.emit(call)
        self.name_results(node, results)
        lying = arguments.get("memory_format") not in (None, torch.preserve_format)
        handles: list[Any] = []
        for position, (alias, result) in enumerate(zip(per_result(schema, value), results, strict=True)):
            if not isinstance(values[position], torch.Tensor):
                handles.append(self._result(result, values[position]))
                continue
            origin = source_of(node, overload, arguments, alias, position)
            source = self.handles.get(origin)
            if origin is None or not isinstance(source, Handle):
                handles.append(fresh(result, self._origin(value, position)))
            else:
                operand, kind = source.value(self.builder.insert), self.type_of(origin.meta["val"])
                handles.append(view_of(source, operand, kind, result, overload.name(), lying))
        self.handles[node] = _as_returned(value, iter(handles))

    def _rebound(self, node: Any, handle: Handle) -> Handle:
        """``handle``, as which an operator makes the tensor known that it gives another shape or memory. Refused for
        tensors of the caller or of the model, which eager PyTorch would change as well.
        """
        before, after = node.args[0], node.meta["val"]
        held = before.meta["val"]
        current = self.handles[before]
        given = (n for n in node.graph.nodes if n.op in ("placeholder", "get_attr"))
        root = self.rebinds.get(current) or next((n for n in given if self.handles.get(n) is current), None)
        moved = handle.storage is not current.storage
        if root is None:
            return handle
        if held.shape != after.shape or held.dtype != after.dtype or (held.stride() != after.stride() and not moved):
            raise reshaped_itself(node.target.name(), repr(root.name))
        if moved:
            handle = replace(handle)  # a tensor of its own in the same memory
            self.rebinds[handle] = root
            self.rebound[self.handles[root]] = handle
        return handle

    def _resized(self, node: Any) -> Handle:
        """A tensor after ``resize_``: its memory as it lies there, row-major. More than there is cannot be said."""
        before, after = node.args[0].meta["val"], node.meta["val"]
        if before.shape == after.shape:
            return self.handles[node.args[0]]
        owner = whole(self.handles[node.args[0]])
        owner.storage.relies_on_layout = True
        operand, (result,) = owner.value(self.builder.insert), self.result_types(after)
        assert result is not None, "the result is a tensor"
        start = self.symbols.extent(before.storage_offset()) - owner.storage.origin
        seen = {"self": operand, "size": types.shape(result), "stride": types.strides(result), "storage_offset": start}
        place = self.location
        try:
            value = ROWS["aten::as_strided"](Call(self, torch.ops.aten.as_strided.default, seen, [result], place))
        except Decline:
            value = None
        if not isinstance(value, SSAValue) or operand.type != owner.storage.kind:
            raise error("FORGE-C003", f"{node.target.name()} needs more memory than the tensor has")
        return view_of(owner, operand, owner.storage.kind, value, node.target.name())

    def _origin(self, value: Any, position: int) -> Extent:
        """Where a result's first element lies in its storage."""
        return self.symbols.extent(leaves(value)[position].storage_offset())

    def _addressed(self, node: Any, overload: Any, seen: dict[str, Any]) -> None:
        """``as_strided`` sees the memory itself: the tensor that owns it, wherever the operand's views lead."""
        held, value = node.args[0].meta["val"], node.meta["val"]
        (result,) = self.result_types(value)
        assert result is not None, "the result is a tensor"
        found = self._strided(whole(self.handles[node.args[0]]), held, overload, seen, result)
        self.name_results(node, found.cached[-1:])
        self.handles[node] = found if overload is torch.ops.aten.as_strided.default else fresh(found.cached[-1])

    def _strided(self, owner: Handle, held: Any, overload: Any, seen: dict[str, Any], result: AnyTensorType) -> Handle:
        """A view of the tensor that owns the memory; ``held`` says where it begins if ``storage_offset`` does not."""
        owner.storage.relies_on_layout = True
        operand = owner.value(self.builder.insert)
        kind, start = owner.storage.kind, seen["storage_offset"]
        if operand.type != kind or types.dtype(result) != types.dtype(kind):
            raise UnknownAliasing("the memory belongs to a tensor of another type")
        owner.storage.relies_on_place |= start is not None
        start = self.symbols.extent(held.storage_offset()) if start is None else start
        first = start - owner.storage.origin
        last = sum(((n - 1) * s for n, s in zip(seen["size"], seen["stride"], strict=True)), start=first)
        ends = [bound for bound in (first, last, types.numel(kind)) if isinstance(bound, int)]
        if len(ends) == 3 and not 0 <= ends[0] <= ends[1] < ends[2] and 0 not in seen["size"]:
            raise UnknownAliasing("it reads memory outside of the tensor that the model is given")
        seen = {**seen, "self": operand, "storage_offset": first}
        (value,) = self.emit(Call(self, overload, seen, [result], self.location))
        return view_of(owner, operand, kind, value, overload.name())

    def _scattered(self, node: Any, seen: dict[str, Any]) -> None:
        """``as_strided_scatter``: what a write through ``as_strided`` makes of a copy of the operand and its memory."""
        held = node.args[0].meta["val"]
        if 0 in held.stride():  # torch lays the copy of what expand made anew
            raise UnknownAliasing("several elements of the operand share memory")
        copied = copy_of(self.handles[node.args[0]], self.builder.insert)
        source, overload = seen.pop("src"), torch.ops.aten.as_strided.default
        result = types.tensor(types.dtype(copied.storage.kind), seen["size"], seen["stride"])
        place = self._strided(whole(copied), held, overload, seen, result)
        place.write(self._cast(source, types.dtype(result), self.location), self.builder.insert, self.location)
        self.name_results(node, [copied.value(self.builder.insert)])
        self.handles[node] = copied

    def argument(self, value: Any) -> Any:
        """An fx argument as the rows see it."""
        if isinstance(value, torch.fx.Node):
            held = self.handles[value]
            if isinstance(held, (Step, Number)):
                return compute(self, held)
            return held.value(self.builder.insert) if isinstance(held, Handle) else held
        if isinstance(value, (list, tuple)):
            return [self._item(item) for item in value]
        return literal(value)

    def _item(self, value: Any) -> Any:
        """An item of a list: an integer there is an extent."""
        held = self.handles[value] if isinstance(value, torch.fx.Node) else value
        symbolic = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
        if isinstance(held, (Step, Number)) and isinstance(symbolic, torch.SymInt):
            return defined(self, compute(self, held), symbolic)
        return self.argument(value)

    def arguments(self, overload: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        """A call's arguments as the rows see them."""
        expected = expected_kinds(overload)
        seen: dict[str, Any] = {}
        for name, value in arguments.items():
            held = self.handles.get(value) if isinstance(value, torch.fx.Node) else None
            if isinstance(held, (Step, Number)):
                nodes = [n for n in arguments.values() if isinstance(n, torch.fx.Node)]
                tensors = [v for n in nodes if isinstance(v := n.meta.get("val"), torch.Tensor)]
                seen[name] = as_argument(self, held, expected[name], tensors)
            else:
                seen[name] = self.argument(value)
        return seen

    def emit(self, call: Call) -> list[SSAValue]:
        """Say a call in forge: by its row, else as ``forge.aten``."""
        row = None if self._only_run_tells(call) else ROWS.get(call.name)
        if row is not None:
            try:
                found = row(call)
            except Decline:
                found = None
            if found is not None:
                return [found] if isinstance(found, SSAValue) else list(found)
            call.withdraw()
        return self._fallback(call)

    def _only_run_tells(self, call: Call) -> bool:
        """True if a result has extents without values, or a number is computed by the model: rows know neither."""
        if self.symbols.told and self.symbols.undefined(e for kind in call.results for e in extents_of(kind)):
            return True
        kinds = expected_kinds(call.overload)
        values = ((value, kinds[name]) for name, value in call.arguments.items() if isinstance(value, SSAValue))
        return any("Tensor" not in expected for value, expected in values)

    def _fallback(self, call: Call, updates: bool = False) -> list[SSAValue]:
        if call.name.partition("::")[2].partition(".")[0] in BY_STRIDES:
            raise unsupported.BY_STRIDES.error(call.name)
        refused = unsupported.of_operator(call.overload)
        if refused is not None or any(kind is None for kind in call.results):
            assigned = call.name == "aten::_has_compatible_shallow_copy_type"
            raise (refused or unsupported.NO_TENSOR).error("an assignment to .data" if assigned else call.name)
        arguments = call.overload._schema.arguments
        positional = [_plan_argument(call.arguments[a.name]) for a in arguments if not a.kwarg_only]
        keywords = [(a.name, _plan_argument(call.arguments[a.name])) for a in arguments if a.kwarg_only]
        keywords = [(n, v) for n, v in keywords if v is not None]
        op = AtenOp.of(
            call.name,
            positional,
            keywords,
            [k for k in call.results if k is not None],
            random=draws_random(call.overload),
            updates=updates,
            defines=self._defines(call),
            location=call.location,
        )
        self.builder.insert(op)
        return list(op.results)

    def _defines(self, call: Call) -> list[Extent]:
        """Symbols that have values once a call has returned: extents of its results."""
        if not self.symbols.told:
            return []
        names = self.symbols.undefined(e for kind in call.results for e in extents_of(kind))
        found = {str(e) for kind in call.results if kind is not None for e in types.shape(kind)}
        if not found.issuperset(names):
            raise error("FORGE-C003", f"{call.name} yields extents that nothing tells: {', '.join(names)}")
        self.symbols.known.update(names)
        return [symbol(name) for name in names]

    # Writes
    # ------------------------------------------------------------------------------------------------------------

    def _write(self, node: Any, overload: Any, schema: Any, place: LocationAttr) -> None:
        """An operator that writes an argument: its functional form, then the value written back through the
        argument's views."""
        bound = bind(schema, node)
        functional, renamed = functional_form(overload)
        if functional is None or len(schema.writes) != 1 or isinstance(bound[schema.writes[0]], (list, tuple)):
            self._update(node, overload, schema, bound, place)
            return
        target_node = bound[schema.writes[0]]
        target: Handle = self.handles[target_node]
        bound = {k: v for k, v in bound.items() if not (renamed and k == schema.writes[0])}
        inner = schema_of(functional)
        arguments = {name: bound.get(name, default) for name, default, _ in inner.arguments}
        kind = self.type_of(target_node.meta["val"])
        try:
            result = self._functional_type(functional, inner, arguments)
        except (RuntimeError, ValueError) as reason:  # torch.export adds copies at the end that do not fit
            shapes = [list(n.meta["val"].shape) for n in node.all_input_nodes]
            text = f"{target_node.name!r} gets another shape: {' and '.join(map(str, shapes[:2]))}"
            remedy = "keep a buffer of the greatest size and the number of rows in use, and write into its slices"
            raise error("FORGE-C003", text, help=remedy, notes=(str(reason).splitlines()[0],)) from None
        if types.shape(result) == types.shape(kind):  # the layout stays, and with it the order of later sums
            result = types.tensor(types.dtype(result), types.shape(kind), types.strides(kind))
        call = Call(self, functional, self.arguments(functional, arguments), [result], place)
        (value,) = self.emit(call)
        value = self._cast(value, types.dtype(kind), place)
        if types.shape(value) != types.shape(kind):
            if not renamed or target.chain or types.numel(kind) != 0 or target_node.op == "placeholder":
                raise error("FORGE-C003", f"{overload.name()} changes the shape of the tensor that it writes")
            target = self.handles[target_node] = fresh(value)  # an empty ``out=`` gets memory of its own
            self.handles[node] = target
            return
        target.write(value, self.builder.insert, place)
        self.handles[node] = target

    def _cast(self, value: SSAValue, dtype: str, place: LocationAttr) -> SSAValue:
        """The value in the dtype of the memory that it is written to."""
        if types.dtype(value) == dtype:
            return value
        kind = types.tensor(dtype, types.shape(value), types.strides(value))
        return self.insert(CastOp.make([value], None, [kind], place))

    def _update(self, node: Any, overload: Any, schema: Schema, bound: dict[str, Any], place: LocationAttr) -> None:
        """An operator that torch has no functional form of (it writes several tensors, or is a user's own): called as
        it is, on values that the call updates.
        """
        targets = written_nodes(schema, bound)
        pairs = combinations([self.handles[target] for target in targets], 2)
        if not all(first.apart(second) for first, second in pairs):
            raise UnknownAliasing("two of the tensors that are written may share memory")
        value = node.meta.get("val")
        named = zip(leaves(value), per_result(schema, value), strict=False)
        own = [v for v, alias in named if alias is None and v is not None]
        aliased = [alias for alias in schema.aliases if alias is not None]
        if not targets or (own and aliased):
            raise error("FORGE-C003", f"{overload.name()} returns what it writes beside other results")
        arguments = self.arguments(overload, bound)
        kinds = [self.type_of(target.meta["val"]) for target in targets]
        call = Call(self, overload, arguments, [*self.result_types(own), *kinds], place)
        results = self._fallback(call, updates=True)
        self.name_results(node, results)
        for target, result in zip(targets, results[len(own) :], strict=True):
            self.handles[target].write(result, self.builder.insert, place)
        if aliased:
            handles = [self.handles[target] for name in aliased for target in nodes_of(bound[name])]
        else:
            handles = [self._result(result, v) for result, v in zip(results, own, strict=False)]
        self.handles[node] = handles if isinstance(value, (list, tuple)) else handles[0] if handles else None

    def _result(self, value: SSAValue, meta: Any) -> Any:
        """What a node becomes that yields a tensor or a number of its own."""
        return fresh(value) if isinstance(meta, torch.Tensor) else number_result(self, value, meta)

    def _functional_type(self, functional: Any, schema: Any, arguments: dict[str, Any]) -> AnyTensorType:
        def fake(value: Any) -> Any:
            if isinstance(value, torch.fx.Node):
                return value.meta["val"]
            if isinstance(value, (list, tuple)):
                return [fake(item) for item in value]
            return value

        mode = next((m for m in (_fake_mode(v) for v in arguments.values()) if m is not None), None)
        positional = [fake(arguments[name]) for name, _, keyword in schema.arguments if not keyword]
        keywords = {name: fake(arguments[name]) for name, _, keyword in schema.arguments if keyword}
        if mode is None:
            return self.type_of(functional(*positional, **keywords))
        with mode:
            return self.type_of(functional(*positional, **keywords))


def _as_returned(value: Any, handles: Iterator[Any]) -> Any:
    """Handles in the lists in which torch's operator returns the tensors."""
    if isinstance(value, (list, tuple)):
        return [_as_returned(item, handles) for item in value]
    return next(handles, None)


@lru_cache(maxsize=4096)
def expected_kinds(overload: Any) -> dict[str, str]:
    """The types of an operator's arguments, by name, as its schema spells them."""
    return {argument.name: str(argument.type) for argument in overload._schema.arguments}


def extents_of(kind: AnyTensorType | None) -> Sequence[Extent]:
    """All extents and strides of a type."""
    return () if kind is None else (*types.shape(kind), *types.strides(kind))


def draws_random(overload: Any) -> bool:
    """True if torch says that the operator's result depends on a generator's state."""
    return torch.Tag.nondeterministic_seeded in overload.tags


def _fake_mode(value: Any) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if isinstance(item, torch.fx.Node):
            mode = getattr(item.meta.get("val"), "fake_mode", None)
            if mode is not None:
                return mode
    return None


def _plan_argument(value: Any) -> Any:
    return tuple(_plan_argument(item) for item in value) if isinstance(value, (list, tuple)) else value
