"""Random programs of views, writes through views and computations, as source text that eager PyTorch accepts.

A program is drawn line by line and run while it is drawn, so that every line is known to be valid for the shapes that
its operands have; what eager refuses (writes through expanded tensors, partly overlapping operands) is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from tests.chooser import Chooser

BUFFERS = ("self.b0", "self.b1", "self.b2")
INPUTS = ("x0", "x1", "x2", "x3")


class Holder(torch.nn.Module):
    """Three buffers, and a program as forward."""

    def __init__(self, source: str, results: Sequence[str]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("b0", torch.randn(3, 4, generator=generator))
        self.register_buffer("b1", torch.randn(2, 3, 4, generator=generator))
        self.register_buffer("b2", torch.arange(4) - 1)
        self.source, self.results = source, tuple(results)
        self.code = compile(source, "<program>", "exec")

    def forward(
        self, x0: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        names = {"self": self, "x0": x0, "x1": x1, "x2": x2, "x3": x3, "torch": torch, "F": F}
        exec(self.code, names)
        return tuple(eval(name, names) for name in self.results)


def example_inputs(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """[3, 4] row-major, [4, 3] transposed, three indices that are all different, and [2, 2, 2] row-major: a tensor with
    gaps is one of the views that a program makes."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(3, 4, generator=generator)
    second = torch.randn(3, 4, generator=generator).t()
    third = torch.randperm(3, generator=generator)
    return first, second, third, torch.randn(2, 2, 2, generator=generator)


class Author:
    """Draws one program."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.lines: list[str] = []
        self.holder = Holder("", ())
        self.names: dict[str, Any] = {"self": self.holder, "torch": torch, "F": F}
        self.names.update(zip(INPUTS, example_inputs(), strict=True))
        self.live = [*BUFFERS, *INPUTS]

    # Choosing

    def integer(self, low: int, high: int) -> int:
        return self.chooser.integer(low, high)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.integer(0, len(items) - 1)]

    def tensor(self, accept: Callable[[torch.Tensor], bool] = lambda t: True) -> str:
        """A live tensor, later ones more often."""
        fit = [name for name in self.live if accept(self.value(name))] or self.live
        return fit[max(self.integer(0, len(fit) - 1), self.integer(0, len(fit) - 1))]

    def value(self, name: str) -> torch.Tensor:
        return eval(name, self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.value(name).shape)

    def dim(self, name: str) -> int:
        rank = max(len(self.shape(name)), 1)
        return self.integer(-rank, rank - 1)

    def number(self) -> str:
        return self.pick(["2", "0.5", "-1", "1", "True", "1.5"])

    # Lines

    def view(self, x: str) -> str:
        """An expression that is (mostly) a view of x."""
        shape, rank = self.shape(x), len(self.shape(x))
        if rank == 0:
            return self.pick([f"{x}.unsqueeze(0)", f"{x}.expand(2)", f"{x}.reshape(1, 1)", f"{x}.view(1)"])
        d = self.dim(x)
        n = shape[d]
        a, b = sorted((self.integer(0, n), self.integer(0, n)))
        other = self.dim(x)
        flat = self.value(x).numel()
        shapes = [s for s in ([flat], [1, flat], [2, -1], [-1, 2], [3, -1], [-1, 1, 3], [4, -1], [2, 2, -1]) if flat]
        return self.pick(
            [
                f"{x}[{':, ' * (d % rank)}{a}:{b}]",
                f"{x}[{':, ' * (d % rank)}{a}:{b}:2]",
                f"{x}[..., {a}:]",
                f"{x}.select({d}, {self.integer(-n, n - 1) if n else 0})",
                f"{x}.narrow({d}, {a}, {b - a})",
                f"{x}.transpose({d}, {other})",
                f"{x}.permute({', '.join(map(str, self.permutation(rank)))})",
                f"{x}.unsqueeze({d})",
                f"{x}.squeeze()",
                f"{x}.squeeze({d})",
                f"{x}.view({', '.join(map(str, self.pick(shapes or [[0]])))})",
                f"{x}.reshape({', '.join(map(str, self.pick(shapes or [[0]])))})",
                f"{x}.flatten()",
                f"{x}.flatten({d})",
                f"{x}.unflatten({d}, (-1, 1))",
                f"{x}.expand({', '.join(map(str, shape))})",
                f"{x}.expand(2, {', '.join(['-1'] * rank)})",
                f"{x}.expand_as({self.tensor()})",
                f"{x}.view_as({self.tensor()})",
                f"{x}.split({self.integer(1, 3)}, {d})[{self.integer(-1, 1)}]",
                f"{x}.chunk(2, {d})[{self.integer(-1, 1)}]",
                f"{x}.tensor_split([{a}, {b}], {d})[{self.integer(0, 2)}]",
                f"{x}.unbind({d})[{self.integer(-1, 1)}]",
                f"{x}.movedim({d}, {other})",
                f"{x}.swapaxes({d}, {other})",
                f"{x}.mT",
                f"{x}.T" if rank <= 2 else f"{x}.mT",
                f"{x}.t()",
                f"{x}.ravel()",
                f"{x}.diagonal()",
                f"{x}.diagonal({self.integer(-1, 1)}, {d}, {other})",
                f"{x}.unfold({d}, {self.integer(1, 2)}, {self.integer(1, 2)})",
                f"{x}.contiguous()",
                f"{x}.detach()",
                f"{x}.to(torch.float32)",
                f"{x}.type_as({self.tensor()})",
                f"F.dropout({x}, 0.5, False)",
                f"torch.atleast_2d({x})",
                f"torch.einsum('...ij->...ji', {x})",
                f"torch.broadcast_tensors({x}, {self.tensor()})[0]",
                f"{x}.as_strided((2, 2), (1, 2))",
                f"{x}.as_strided(({a + 1}, 2), ({self.integer(1, 4)}, {self.integer(0, 2)}), {b})",
                f"{x}.expand(2, {', '.join(['-1'] * rank)})[{self.integer(0, 1)}]",
                f"{x}.hsplit(2)[{self.integer(0, 1)}]",
                f"torch.meshgrid({x}.flatten(), {x}.flatten()[:2], indexing='ij')[0]",
                f"torch.view_as_complex({x}.unflatten({rank - 1}, (-1, 2)))",
                f"torch.view_as_real({x})",
                f"{x}.view(torch.int32)",
                f"{x}.data",
                f"{x}.real",
                f"{x}.imag",
                f"{x}.conj()",
                f"{x}",
            ]
        )

    def permutation(self, rank: int) -> list[int]:
        left, order = list(range(rank)), []
        while left:
            order.append(left.pop(self.integer(0, len(left) - 1)))
        return order

    def computation(self, x: str) -> str:
        """An expression that is a tensor of its own."""
        y = self.tensor()
        d = self.dim(x)
        return self.pick(
            [
                f"{x} + {y}",
                f"{x} * {y}",
                f"{x} - {self.number()}",
                f"{self.number()} - {x}",
                f"{x} / 2",
                f"-{x}",
                f"{x}.clone()",
                f"{x}.relu()",
                f"{x}.abs().sqrt()",
                f"{x}.sum()",
                f"{x}.sum({d})",
                f"{x}.sum({d}, keepdim=True)",
                f"{x}.amax({d})",
                f"{x}.float().mean({d})",
                f"torch.cat([{x}, {y}], {d})",
                f"torch.cat([{x}, {x}], {d})",
                f"torch.stack([{x}, {x}], {d})",
                f"torch.where({x} > 0, {x}, {y})",
                f"{x}.masked_fill({y} > 0, {self.number()})",
                f"{x}.to(torch.{self.pick(['float64', 'int64', 'float32', 'bool', 'bfloat16'])})",
                f"{x}.to(torch.float32, copy=True)",
                f"{x} > {y}",
                f"{x}.cumsum({d})",
                f"{x}.float() @ {y}.float().mT",
                f"{x}.repeat_interleave(2, {d})",
                f"{x}.flip({d})",
                f"{x}.roll(1, {d})",
                f"{x}.float().softmax({d})",
                f"{x}.index_select({d}, x2)",
                f"{x}[x2 % 2]",
                f"torch.zeros_like({x})",
                f"{x}.new_zeros(2, 3)",
                "torch.tensor([1.0, 2.0, 3.0])",
                f"{x}.sort({d})[0]",
                f"{x}.topk(1, {d})[1]",
            ]
        )

    def write(self, x: str) -> str:
        """A statement that writes x."""
        y = self.tensor()
        d = self.dim(x)
        shape = self.shape(x)
        same = self.tensor(lambda t: tuple(t.shape) == shape)
        rank = len(shape)
        n = shape[d] if rank else 1
        a, b = sorted((self.integer(0, n), self.integer(0, n)))
        # In place of a new shape: torch.export refuses it for inputs, and does not see it through a second name.
        own = sum(self.value(name) is self.value(x) for name in self.live) == 1 and x.isidentifier() and x not in INPUTS
        return self.pick(
            [
                f"{x}.add_({same})",
                f"{x}.add_({y})",
                f"{x} += {self.number()}",
                f"{x} *= {y}",
                f"{x}.mul_({self.number()})",
                f"{x}.sub_({same}, alpha=2)",
                f"{x}.copy_({y})",
                f"{x}.copy_({same})",
                f"{x}.zero_()",
                f"{x}.fill_({self.number()})",
                f"{x}.neg_()",
                f"{x}.relu_()",
                f"{x}.clamp_(-0.5, 0.5)",
                f"{x}.masked_fill_({same} > 0, {self.number()})",
                f"{x}[{self.integer(-n, n - 1) if n else 0}] = {self.number()}",
                f"{x}[{a}:{b}] = {self.number()}",
                f"{x}[..., {a}:{b}] += {self.number()}",
                f"{x}[{a}:{b}] = {y}",
                f"{x}[x2 % 2] = {self.number()}",
                f"{x}[x2] += {self.number()}",
                f"{x}[{same} > 0] = 0",
                f"{x}.index_copy_({d}, x2[:{b}], {y}.to({x}.dtype))",
                f"{x}.index_add_({d}, x2, {x}.index_select({d}, x2))",
                f"{x}.index_fill_({d}, x2[:2], 3)",
                f"{x}.scatter_({d}, torch.zeros_like({x}, dtype=torch.int64), 2)",
                f"torch.add({same}, {same}, out={x})",
                f"torch.mul({y}, 2, out={x})",
                f"torch.exp({same}, out={x})",
                f"torch.cat([{y}, {y}], 0, out={x})",
                f"{x}.addcmul_({same}, {same}, value=0.5)",
                f"{x}.exp_()",
                f"{x}.logical_not_()",
                *([f"{x}.t_()", f"{x}.unsqueeze_({d})", f"{x}.squeeze_()", f"{x}.transpose_({d}, 0)"] if own else []),
                f"{x}.diagonal().fill_({self.number()})",
                f"{x}.data.mul_({self.number()})",
                f"{x}.fill_diagonal_({self.number()})",
                f"torch._foreach_add_([{x}, {same}], 1.0)",
                f"torch._foreach_mul_([{x}], [{same}])",
                *([f"{x}.set_({y})", f"{x}.resize_(2, {max(n, 1)})"] if own else []),
                f"{x}.lerp_({same}, 0.25)",
            ]
        )

    def line(self) -> None:
        """Draw one line; keep it if eager accepts it."""
        x = self.tensor()
        kind = self.integer(0, 9)
        if kind < 4:
            text = self.assigned(self.view(x))
        elif kind < 6:
            text = self.assigned(self.computation(x))
        else:
            text = self.write(x)
        if kind >= 6 and any(self.overlap(x, name) for name in self.live if name in text):
            return  # eager reads what it has just written
        if not accepted(text, self.names):
            return
        name, equals, _ = text.partition(" = ")
        if equals and name not in self.live and name.isidentifier():
            if not isinstance(self.names[name], torch.Tensor) or self.names[name].numel() > 200:
                return
            self.live.append(name)
        self.lines.append(text)

    def overlap(self, x: str, y: str) -> bool:
        """True if two tensors share memory without being the same elements in the same order."""
        a, b = self.value(x), self.value(y)
        same = (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())
        return not same and a.untyped_storage()._cdata == b.untyped_storage()._cdata

    def assigned(self, expression: str) -> str:
        return f"t{len(self.lines)} = {expression}"

    def finish(self) -> tuple[str, list[str]]:
        """The source, and the names of what it returns."""
        own = [name for name in self.live if name.startswith("t")]
        results = [name for name in own if self.integer(0, 1)] + [self.tensor()]
        return "\n".join(self.lines), results[:5] + results[-1:]


def accepted(text: str, names: dict[str, Any]) -> bool:
    """True if eager PyTorch executes a line without a warning; ``names`` has its effect then."""
    import warnings

    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else the second time would differ from the first
    try:
        with contextlib.suppress(Exception), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("error")
            exec(text, names)
            return True
        return False
    finally:
        torch.set_warn_always(always)


def draw_program(chooser: Chooser, lines: int = 10) -> tuple[str, list[str]]:
    """A program's source, and the names of its results."""
    author = Author(chooser)
    for _ in range(author.integer(1, lines)):
        author.line()
    return author.finish()
