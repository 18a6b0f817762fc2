"""Tables of a report: a caption, headings, cells, and under each figure its interval in small."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

_FIGURE_AND_RANGE = re.compile(r"(?P<figure>\S+) (?P<range>\([^)]*\d[^)]*\))")


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the row; columns in `prose` hold words, other ones figures.

    A figure followed by a range in brackets is set with the range under it. `groups` has headings, by the number of the
    row before which they stand. Rows in `bold` are those spoken of.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    bold: tuple[int, ...] = ()
    prose: tuple[int, ...] = ()
    groups: Mapping[int, str] = field(default_factory=dict)


def table_html(table: Table) -> str:
    """A <table> that scrolls within itself where the page is too narrow."""
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    rows = "\n".join(_row(table, number, cells) for number, cells in enumerate(table.rows))
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.caption)}</h3>\n<div class="scroll" tabindex="0" role="region"'
        f' aria-label="{escape(table.caption)}">\n<table>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{note}"
    )


def _row(table: Table, number: int, cells: tuple[str, ...]) -> str:
    first, *rest = cells
    group = ""
    if number in table.groups:
        heading = escape(table.groups[number])
        group = f'<tr class=group><th scope="rowgroup" colspan="{len(table.headings)}">{heading}</th></tr>\n'
    columns = "".join(
        f"<td{' class=prose' if column in table.prose else ''}>{_cell(cell)}</td>"
        for column, cell in enumerate(rest, 1)
    )
    spoken = " class=spoken" if number in table.bold else ""
    return f'{group}<tr{spoken}><th scope="row">{escape(first)}</th>{columns}</tr>'


def _cell(text: str) -> str:
    matched = _FIGURE_AND_RANGE.fullmatch(text)
    if not matched:
        return escape(text)
    return f"{escape(matched['figure'])}<small>{escape(matched['range'][1:-1])}</small>"
