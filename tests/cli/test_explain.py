from forgec.diagnostics.catalog import CATALOG
from tests.cli.command import forgec


def test_an_entry_with_its_remedy():
    finished = forgec("explain", "FORGE-R004")
    entry = CATALOG["FORGE-R004"]
    assert finished.code == 0
    assert finished.out.startswith(f"FORGE-R004: {entry.title}\n")
    assert "What to do: " in finished.out
    assert " ".join(finished.out.split()).endswith(entry.remedy)


def test_short_and_lower_case_codes():
    assert forgec("explain", "r004").out == forgec("explain", "FORGE-R004").out


def test_all_codes():
    lines = forgec("explain").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(CATALOG)


def test_unknown_codes():
    finished = forgec("explain", "FORGE-R040")
    assert finished.code == 1
    assert "error[FORGE-U007]: there is no diagnostic FORGE-R040" in finished.err
    assert "did you mean FORGE-R0" in finished.err
    assert "lists all codes" in forgec("explain", "nonsense").err
