"""The codes that the source uses, the catalog that explains them and the page that lists them agree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forgec.diagnostics.catalog import CATALOG
from tools import generate_docs

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "forgec").rglob("*.py"))
PAGE = ROOT / "docs" / "errors.md"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_code_in_the_source_is_in_the_catalog(path: Path):
    used = set(re.findall(r"FORGE-[A-Z]\d{3}", path.read_text(encoding="utf-8")))
    assert used <= set(CATALOG)


def test_every_code_has_a_section_on_the_page():
    headings = re.findall(r"^### (FORGE-[A-Z]\d{3}): (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(headings) == {code: entry.title for code, entry in CATALOG.items()}


@pytest.mark.parametrize("code", CATALOG)
def test_entries_are_complete(code: str):
    entry = CATALOG[code]
    assert code[6] in generate_docs.FAMILIES
    assert entry.title[0].islower() or entry.title.split()[0].isupper()
    assert not entry.title.endswith(".")
    assert entry.explanation.endswith(".")
    assert entry.remedy.endswith(".")


def test_generated_pages_are_up_to_date():
    assert generate_docs.main(["--check"]) == 0


def test_a_stale_page_is_found_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(generate_docs, "DOCS", tmp_path)
    assert generate_docs.main(["--check"]) == 1
    assert "docs/errors.md" in capsys.readouterr().err
    assert generate_docs.main([]) == 0
    assert generate_docs.main(["--check"]) == 0


def test_the_generator_runs_as_a_script():
    subprocess.run([sys.executable, ROOT / "tools" / "generate_docs.py", "--check"], check=True)
