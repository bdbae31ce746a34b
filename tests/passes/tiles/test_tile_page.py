"""docs/tile.md is what the compiler prints now."""

from __future__ import annotations

from tools import generate_docs


def test_the_page_is_current() -> None:
    page = (generate_docs.DOCS / "tile.md").read_text(encoding="utf-8")
    assert page == generate_docs.tile_page(), "run 'make docs'"
    assert "{{" not in page
    for word in ("tile.kernel @softmax", "tile.dot", "llvm.fma", "@triton.jit", "scf.for"):
        assert word in page
