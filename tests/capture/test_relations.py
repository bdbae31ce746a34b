"""Relations between extents that torch.export relies on: they are checked at every call."""

import pytest
import torch

import forgec
from forgec import ForgeError

AUTO = torch.export.Dim.AUTO
BOTH = ({0: AUTO}, {0: AUTO})


class Branch(torch.nn.Module):
    def forward(self, x, y):
        if x.shape[0] > 2 * y.shape[0]:
            return x.sum() + y.sum()
        return x.sum() - y.sum()


class Fits(torch.nn.Module):
    def forward(self, x, y):
        return x.reshape(-1, 4) * 1, y[: x.shape[0]] * 2


class Several(torch.nn.Module):
    def forward(self, x, y):
        if x.shape[0] % 3 == 2 and y.shape[0] != 7:
            return x * 2
        return x * 3


class Fraction(torch.nn.Module):
    def forward(self, x):
        return x[:, : int(x.shape[0] * 0.7)] * 1


class Nested(torch.nn.Module):
    def forward(self, pair, *, more):
        if pair["a"].shape[0] < more[1].shape[0]:
            return pair["a"].sum() + more[0]
        return pair["a"].sum() - more[0]


def example(rows, columns=3):
    return torch.randn(rows, columns)


def check(model, program, *args, **kwargs):
    torch.testing.assert_close(program(*args, **kwargs), model(*args, **kwargs))


def compiled(model, args, shapes, tmp_path, saved, kwargs=None):
    program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    if not saved:
        return forgec.compile(model, args, kwargs, dynamic_shapes=shapes)
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    return forgec.compile(torch.export.load(path))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("model", "good", "bad", "text"),
    [
        (Branch(), [(5, 3), (8, 9), (4, 2)], [(7, 3), (5, 2)], "x.0 <= y.0 * 2"),
        (Fits(), [(4, 4), (12, 20)], [(8, 7)], "x.0 <= y.0"),
        (Fits(), [(8, 8)], [(5, 9)], "mod(x.0 * 3, 4) == 0"),
        (Several(), [(8, 9), (5, 6)], [(6, 9)], "mod(x.0, 3) == 2"),
        (Several(), [(8, 9), (5, 6)], [(8, 7)], "y.0 != 7"),
    ],
)
def test_a_call_fulfils_what_was_taken_for_granted(model, good, bad, text, saved, tmp_path):
    program = compiled(model, (example(8), example(9)), BOTH, tmp_path, saved)
    for first, second in good:
        check(model, program, example(first), example(second))
    for first, second in bad:
        with pytest.raises(ForgeError) as caught:
            program(example(first), example(second))
        (found,) = caught.value.diagnostics
        assert found.code == "FORGE-R003"
        assert text in " ".join([found.message, *found.notes])


def test_the_error_names_the_line():
    program = forgec.compile(Branch(), (example(8), example(9)), dynamic_shapes=BOTH)
    with pytest.raises(ForgeError) as caught:
        program(example(8), example(3))
    (found,) = caught.value.diagnostics
    assert found.message == "the artifact was compiled for x.0 <= y.0 * 2, the call has x.0 = 8, y.0 = 3"
    assert found.location is not None
    assert found.location.line == Branch.forward.__code__.co_firstlineno + 1


@pytest.mark.parametrize("saved", [False, True])
def test_what_extents_cannot_say_holds_for_the_example(saved, tmp_path):
    program = compiled(Fraction(), (example(8, 30),), ({0: AUTO},), tmp_path, saved)
    check(Fraction(), program, example(8, 30))
    with pytest.raises(ForgeError, match=r"compiled for x.0 == 8, the call has x.0 = 16"):
        program(example(16, 30))


@pytest.mark.parametrize("saved", [False, True])
def test_nested_arguments(saved, tmp_path):
    args, kwargs = ({"a": example(4)},), {"more": [torch.ones(()), example(6)]}
    shapes = {"pair": {"a": {0: AUTO}}, "more": [None, {0: AUTO}]}
    program = compiled(Nested(), args, shapes, tmp_path, saved, kwargs)
    check(Nested(), program, {"a": example(3)}, more=[torch.ones(()), example(5)])
    with pytest.raises(ForgeError, match="FORGE-R003"):
        program({"a": example(5)}, more=[torch.ones(()), example(5)])


def test_relations_are_part_of_the_artifact(tmp_path):
    path = tmp_path / "m.forge"
    forgec.compile(Branch(), (example(8), example(9)), dynamic_shapes=BOTH).save(path)
    loaded = forgec.load(path)
    check(Branch(), loaded, example(4), example(4))
    with pytest.raises(ForgeError, match=r"x.0 <= y.0 \* 2"):
        loaded(example(8), example(3))


@pytest.mark.parametrize("rows", [1, 9])
def test_a_range_that_tracing_narrowed(rows):
    program = forgec.compile(Branch(), (example(6), example(8)), dynamic_shapes=({0: forgec.Dim("rows", max=8)}, None))
    check(Branch(), program, example(8), example(8))
    if rows == 9:
        with pytest.raises(ForgeError, match=r'Dim\("rows", max=9\)'):
            program(example(rows), example(8))
    else:
        check(Branch(), program, example(rows), example(8))
