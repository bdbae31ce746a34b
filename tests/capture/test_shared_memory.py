"""Memory that several tensors of the model share, tensors that get other memory, and memory outside of a tensor."""

import pytest
import torch

import forgec
from forgec import ForgeError


class PartsOfABuffer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("whole", torch.zeros(2, 3))
        self.register_buffer("row", self.whole[1])
        self.weight = torch.nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("tail", self.weight.data[1:])

    def forward(self, x):
        self.whole.add_(x)
        self.row.mul_(2)
        self.tail.add_(1)
        return self.whole * 1, self.row + 0, self.weight * x.sum()


class SetBuffer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(2, 3))

    def forward(self, x):
        new = self.kept + x
        self.kept.set_(new)
        new.mul_(2)
        return self.kept + 1


class SetInput(torch.nn.Module):
    def forward(self, x, y):
        x.add_(1)
        x.set_(y * 2)
        x.set_(x + 3)
        return x * 1


class OverwrittenCopy(torch.nn.Module):
    def forward(self, x):
        copy = x.clone()
        part = copy[::2]
        x.add_(1)
        return copy, part


def call(model, *args):
    result = model(*args)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("model", [PartsOfABuffer, SetBuffer])
def test_the_state_of_the_model(model, tmp_path):
    compiled, eager = forgec.compile(model(), (torch.randn(2, 3),)), model()
    path = tmp_path / "m.forge"
    compiled.save(path)
    loaded = forgec.load(path)
    for _ in range(3):
        x = torch.randn(2, 3)
        expected = call(eager, x)
        for program in (compiled, loaded):
            for ours, theirs in zip(call(program, x), expected, strict=True):
                assert torch.equal(ours, theirs)


def test_an_input_gets_other_memory():
    compiled = forgec.compile(SetInput(), (torch.randn(2, 3), torch.randn(2, 3)))
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    theirs = x.clone()
    assert torch.equal(compiled(x, y), SetInput()(theirs, y))
    assert torch.equal(x, theirs)


def test_a_copy_and_a_view_of_it_stay_together():
    compiled = forgec.compile(OverwrittenCopy(), (torch.randn(4, 4),))
    copy, part = compiled(torch.zeros(4, 4))
    assert part.stride() == (8, 1)
    copy.add_(10)
    assert torch.equal(part, torch.full((2, 4), 10.0))


def test_the_place_in_the_storage():
    def first_three(x):
        return x.as_strided((3,), (1,), 0) * 1

    compiled, memory = forgec.compile(first_three, (torch.arange(4.0),)), torch.arange(10.0)
    assert torch.equal(compiled(memory[:4]), memory[:3])
    with pytest.raises(ForgeError, match="x has storage offset 4, the artifact was compiled for 0"):
        compiled(memory[4:8])


@pytest.mark.parametrize(("size", "start"), [((8,), None), ((3,), 0)])
def test_memory_outside_of_the_input(size, start):
    def outside(x):
        return x.as_strided(size, (1,), start) * 1

    with pytest.raises(ForgeError, match="it reads memory outside of the tensor that the model is given"):
        forgec.compile(outside, (torch.arange(20.0)[4:8],))


def test_a_buffer_that_grows():
    class Growing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rows", torch.zeros(2, 3))

        def forward(self, x):
            self.rows = torch.cat([self.rows, x[None]])
            return self.rows.mean(0)

    with pytest.raises(ForgeError, match="gets another shape") as caught:
        forgec.compile(Growing(), (torch.randn(3),))
    assert caught.value.diagnostics[0].code == "FORGE-C003"


WEIGHT = torch.randn(5, 4)
TURNED = {
    "a linear": lambda x: torch.nn.functional.linear(x, WEIGHT).mT.contiguous(),
    "a product with a weight on the left": lambda x: WEIGHT @ x.mT,
    "an activation of one": lambda x: torch.nn.functional.gelu(WEIGHT @ x.mT),
    "a view of one": lambda x: (WEIGHT @ x.mT)[:, :3],
    "stacked products": lambda x: (x @ x.mT @ x).permute(2, 0, 1).contiguous(),
    "two of one": lambda x: (WEIGHT @ x.mT).split(2, dim=1),
}


@pytest.mark.parametrize("rows", [None, torch.export.Dim("rows", min=2)], ids=["static", "dynamic"])
@pytest.mark.parametrize("function", TURNED.values(), ids=TURNED)
def test_results_lie_as_in_eager_whatever_kernels_can_write(function, rows):
    x = torch.randn(2, 3, 4)
    compiled = forgec.compile(function, (x,), dynamic_shapes=None if rows is None else ({1: rows},))
    for given in (x, torch.randn(2, 3 if rows is None else 6, 4)):
        ours, theirs = compiled(given), function(given)
        pairs = [(ours, theirs)] if isinstance(theirs, torch.Tensor) else list(zip(ours, theirs, strict=True))
        for found, expected in pairs:
            assert found.stride() == expected.stride()
            torch.testing.assert_close(found, expected)
