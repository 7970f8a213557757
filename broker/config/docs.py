"""`python -m broker.config.docs`: write docs/configuration.md anew from the table."""

from __future__ import annotations

from pathlib import Path

from .render import render_docs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render_docs(), encoding="utf-8")
    print(PAGE)
