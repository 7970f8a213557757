"""Columns and numbers of what commands print: nothing is cut off, so pipes may read it too."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("", "Ki", "Mi", "Gi", "Ti")


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines; a column of numbers is aligned to the right."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in table:
        cells = (
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def _is_number(cell: str) -> bool:
    return cell == "-" or (cell[:1].isdigit() and ":" not in cell)


def size(count: float) -> str:
    """Bytes, as a person reads them."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return f"{count:.0f} B" if power == 0 else f"{count:.1f} {_UNITS[power]}B"


def counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def bar(done: int, total: int, width: int = 20) -> str:
    """[#####...............]  How far something is."""
    filled = width if total <= 0 else min(width, width * done // total)
    return f"[{'#' * filled}{'.' * (width - filled)}]"
