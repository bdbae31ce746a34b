from collections.abc import Iterator

import pytest

from forgec.diagnostics import ForgeError
from forgec.passes.pipelines import PRESETS, expand, parse, text_of
from forgec.passes.registry import added_passes
from tests.passes import fakes


@pytest.fixture(autouse=True)
def _fake_passes() -> Iterator[None]:
    with added_passes(*fakes.ALL):
        yield


def codes(pipeline: str) -> list[str]:
    with pytest.raises(ForgeError) as caught:
        parse(pipeline)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_parse(preset: str):
    assert text_of(parse(preset)) == expand(preset)


@pytest.mark.parametrize("nothing", ["", "  ", "@O0"])
def test_the_empty_pipeline_has_no_passes(nothing: str):
    assert parse(nothing) == ()


def test_presets_mix_with_passes():
    presets = {"@A": "leave,@B", "@B": 'cse{x=1,2 y="a,b"}', "@E": ""}
    assert expand("dce, @A ,@E,leave", presets) == 'dce,leave,cse{x=1,2 y="a,b"},leave'


def test_a_preset_that_contains_itself_is_refused():
    with pytest.raises(ForgeError, match=r"@A > @B > @A") as caught:
        expand("@A", {"@A": "@B", "@B": "@A"})
    assert caught.value.code == "FORGE-P002"


def test_options_reach_the_pass():
    (pass_,) = parse("subtract-instead{count=2}")
    assert pass_ == fakes.SubtractInstead(count=2)


def test_integers_do_for_options_that_are_floats():
    (pass_,) = parse("wait{seconds=10 pauses=1,2.5}")
    assert pass_ == fakes.Wait(seconds=10.0, pauses=(1.0, 2.5))
    assert all(type(value) is float for value in (pass_.seconds, *pass_.pauses))
    assert parse("wait{either=3}") == (fakes.Wait(either=3),)
    assert codes("wait{seconds=true}") == codes("subtract-instead{count=1.5}") == ["FORGE-P002"]


def test_text_round_trips_with_kebab_case_options_and_without_defaults():
    text = "subtract-instead{count=2},leave,scf-parallel-loop-tiling{parallel-loop-tile-sizes=4,4}"
    assert text_of(parse(text)) == text
    assert text_of(parse("subtract-instead{count=1}")) == "subtract-instead"


def test_all_problems_come_together():
    assert codes("leve,dce,@O9,subtract-instead{cuont=1}") == ["FORGE-P001", "FORGE-P001", "FORGE-P002"]


@pytest.mark.parametrize(
    ("pipeline", "suggestion"),
    [("leve", "leave"), ("@O22", "@O2"), ("subtract-instead{cuont=1}", "count")],
)
def test_near_misses_are_suggested(pipeline: str, suggestion: str):
    with pytest.raises(ForgeError, match=rf"did you mean {suggestion}\?"):
        parse(pipeline)


def test_far_misses_point_to_the_list():
    with pytest.raises(ForgeError, match="--list-passes"):
        parse("zzzzzz")


@pytest.mark.parametrize(
    "pipeline",
    [
        "leave,",
        ",",
        "leave,,dce",
        "leave{",
        "leave}",
        "leave{a",
        "leave dce",
        "leave{count=}",
        'leave{x="',
        "leave{}dce",
        "leave{x=1}{y=2}",
        "leave[1]",
        "$",
        "leave{count=1}",
        "subtract-instead{count=many}",
        "subtract-instead{count=1,2}",
        "subtract-instead{count}",
        "apply-individual-rewrite",
    ],
)
def test_bad_text_and_bad_options(pipeline: str):
    assert codes(pipeline) == ["FORGE-P002"]


def test_bad_options_list_the_options():
    with pytest.raises(ForgeError, match="option count: int, 1 if not given"):
        parse("subtract-instead{count=many}")
