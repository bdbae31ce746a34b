from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from forgec.cli.inputs import parse_input
from forgec.diagnostics import ForgeError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1x3xi64=0", np.zeros((1, 3), np.int64)),
        ("x=2x2xf32=1,2.5,-1e3,inf", np.array([[1, 2.5], [-1e3, np.inf]], np.float32)),
        ("x=f64=0.5", np.array(0.5)),
        ("x=4xi1=true", np.ones(4, np.bool_)),
        ("x=2xi1=0,1", np.array([False, True])),
        ("x=2xui8=0xff", np.full(2, 255, np.uint8)),
        ("x=3xbf16=1.5", np.full(3, 1.5, ml_dtypes.bfloat16)),
        ("x=1xc64=1+2j", np.array([1 + 2j], np.complex64)),
        ("x=0x4xf32=1", np.zeros((0, 4), np.float32)),
    ],
)
def test_values(text: str, expected: np.ndarray):
    name, array = parse_input(text)
    assert name == "x"
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


def test_files(tmp_path: Path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(8).reshape(1, 8))
    assert parse_input(f"a.b=@{path}")[0] == "a.b"
    np.testing.assert_array_equal(parse_input(f"x=@{path}")[1], parse_input(f"x=1x8xi64=@{path}")[1])


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "x=",
        "=1xi64=0",
        "x=1xi64",
        "x=1xi64=",
        "x=1xq7=0",
        "x=-1xi64=0",
        "x=1xi64=one",
        "x=3xi64=1,2",
        "x=1xi8=300",
        "x=1xi1=2",
        "x=1xi64=1.5",
        "x=1x8xi64=@{good}",
        "x=2x8xf32=@{good}",
        "x=@{text}",
        "x=@{pickle}",
        "x=@{archive}",
        "x=@{empty}",
    ],
)
def test_bad_values(text: str, tmp_path: Path):
    names = ("good.npy", "text", "pickle.npy", "archive.npz", "empty")
    files = {name.partition(".")[0]: tmp_path / name for name in names}
    np.save(files["good"], np.zeros((2, 8), np.int64))
    files["text"].write_text("hello")
    np.save(files["pickle"], np.array([{}], dtype=object))
    np.savez(files["archive"], a=np.zeros(1))
    files["empty"].write_text("")
    with pytest.raises(ForgeError, match="accepted: name=@file") as caught:
        parse_input(text.format(**files))
    assert caught.value.code == "FORGE-U005"


def test_missing_files():
    with pytest.raises(ForgeError, match="cannot read no-such-file") as caught:
        parse_input("x=@no-such-file.npy")
    assert caught.value.code == "FORGE-U001"


@pytest.mark.parametrize("extent", ["99999999999", "9" * 30])
def test_more_than_memory_holds(extent: str):
    with pytest.raises(ForgeError) as raised:
        parse_input(f"x={extent}x8xf32=1")
    assert raised.value.code == "FORGE-R010"
