"""Inputs that lie otherwise than the example did, where the model's meaning depends on how they lie."""

import pytest
import torch

import forgec
from forgec import ForgeError


class Strided(torch.nn.Module):
    def forward(self, x):
        return torch.as_strided(x, (2, 2), (1, 3)) * 2


class WriteThroughReshape(torch.nn.Module):
    def forward(self, x):
        x.reshape(-1).add_(1)
        return x * 2


class ReadAfterWrite(torch.nn.Module):
    def forward(self, x):
        flat = x.flatten()
        x.add_(1)
        return flat * 2


class WriteThroughSplit(torch.nn.Module):
    """A dimension becomes two: every layout has a view of that."""

    def forward(self, x):
        x.unflatten(1, (3, 2)).add_(1)
        return x.reshape(-1) * 2


class OnlyReads(torch.nn.Module):
    def forward(self, x):
        return x.reshape(-1).contiguous() + x.unsqueeze(0).flatten(0, 1).sum()


EXACT = [Strided, WriteThroughReshape, ReadAfterWrite]
ANY = [WriteThroughSplit, OnlyReads]


@pytest.mark.parametrize("model", EXACT + ANY)
def test_an_input_that_lies_as_the_example_did(model):
    program = forgec.compile(model(), (torch.randn(4, 6),))
    x = torch.randn(4, 6)
    theirs = x.clone()
    assert torch.equal(program(x), model()(theirs))
    assert torch.equal(x, theirs)


@pytest.mark.parametrize("model", EXACT)
def test_another_layout_is_refused_before_anything_runs(model):
    program = forgec.compile(model(), (torch.randn(4, 6),))
    x = torch.randn(6, 4).t()
    before = x.clone()
    with pytest.raises(ForgeError, match=r"x has strides \[1, 4\], the artifact was compiled for \[6, 1\]") as caught:
        program(x)
    assert caught.value.diagnostics[0].code == "FORGE-R008"
    assert torch.equal(x, before)


@pytest.mark.parametrize("model", ANY)
def test_another_layout_means_the_same(model):
    program = forgec.compile(model(), (torch.randn(4, 6),))
    x = torch.randn(6, 4).t()
    theirs = x.clone()
    torch.testing.assert_close(program(x), model()(theirs))
    assert torch.equal(x, theirs)


def test_the_layout_is_part_of_the_artifact(tmp_path):
    path = tmp_path / "m.forge"
    forgec.compile(Strided(), (torch.randn(4, 6),)).save(path)
    with pytest.raises(ForgeError, match="FORGE-R008"):
        forgec.load(path)(torch.randn(6, 4).t())


def test_dynamic_extents():
    shapes = ({0: forgec.Dim("rows", min=2, max=9), 1: forgec.Dim("columns", min=2, max=9)},)
    program = forgec.compile(WriteThroughReshape(), (torch.randn(4, 6),), dynamic_shapes=shapes)
    x = torch.randn(3, 5)
    theirs = x.clone()
    assert torch.equal(program(x), WriteThroughReshape()(theirs))
    assert torch.equal(x, theirs)
    with pytest.raises(ForgeError, match="FORGE-R008"):
        program(torch.randn(5, 3).t())
