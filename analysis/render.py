"""A table in Markdown, LaTeX (booktabs), HTML, CSV and on the terminal, all from one model."""

import csv
import html
import io
import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.table import MISSING, Entry, Row, Table

_MARKDOWN_MARKS = frozenset("\\`*_[]|~$")
_MARKDOWN_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown_text(text: str) -> str:
    """`text` with everything that Markdown, or HTML in it, would read as a command written out.

    A bare address would become a link too (GFM, 6.9): its colon and its "www." are written out.
    """
    shown = " ".join(text.splitlines()) if len(text.splitlines()) > 1 else text
    shown = "".join(
        "\\" + c if c in _MARKDOWN_MARKS else _MARKDOWN_ENTITIES.get(c, c)
        for c in "".join(c if c.isprintable() else " " for c in shown)
    )
    shown = shown.replace("://", "&#58;//").replace("@", "&#64;")
    return re.sub(r"(?i)www\.", lambda found: found[0][:-1] + "&#46;", shown)


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?")


def csv_text(value: object) -> object:
    """`value`, with an apostrophe before what a spreadsheet would compute; numbers stay numbers."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return (
        f"'{value}"
        if value.lstrip(" \"'").startswith(
            ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
        )
        else value
    )


def _markdown_lines(first: str, under: tuple[str, ...]) -> str:
    return "<br>".join([first, *(f"<sub>{markdown_text(line)}</sub>" for line in under)])


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    shown = f"**{text}**" if entry.best else text
    return _markdown_lines(shown, entry.under)


def to_markdown(table: Table) -> str:
    """A pipe table under a heading, notes as a list."""
    lines = [f"### {markdown_text(table.title)}", ""]
    lines.append("| " + " | ".join(map(markdown_text, (table.stub, *table.columns))) + " |")
    sides = "".join(":--|" if c in table.prose else "--:|" for c in table.columns)
    lines.append("|:--|" + sides)
    for row in table.rows:
        stub = _markdown_lines(markdown_text(row.label), row.under)
        entries = [stub, *map(_markdown_entry, row.entries)]
        lines.append("| " + " | ".join(entries) + " |")
    lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "—": "---",
    "–": "--",
    "’": "'",
    "“": "``",
    "”": "''",
    "\n": " ",
}


def _latex_text(text: str) -> str:
    """`text` with every character that LaTeX would read as a command written out."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_line(fields: Sequence[str], widths: Sequence[int]) -> str:
    r"""One line of a `tabular`; words that are broken into lines are ragged.

    `\raggedright` takes `\\` for itself, so such a line ends in `\tabularnewline`.
    """
    broken = [width == LATEX_WORDS for width in widths]
    shown = [
        rf"\raggedright {text}" if text and long else text
        for text, long in zip(fields, broken, strict=True)
    ]
    return " & ".join(shown) + (r" \tabularnewline" if any(broken) else r" \\")


def _latex_row(row: Row, places: list[int], widths: Sequence[int]) -> list[str]:
    """The lines of one row: ours, then one smaller line for each line under it."""
    entries = [row.entries[place] for place in places]
    first = [
        rf"\textbf{{{_latex_text(entry.text)}}}" if entry.best else _latex_text(entry.text)
        for entry in entries
    ]
    # The empty group keeps a label that starts with "[" from being read as an option of \\.
    lines = [["{}" + _latex_text(row.label), *first]]
    unders = [row.under, *(entry.under for entry in entries)]
    for below in itertools.zip_longest(*unders, fillvalue=""):
        small = [rf"\scriptsize {_latex_text(text)}" if text else "" for text in below]
        lines.append(["{}" + small[0], *small[1:]])
    return [_latex_line(line, widths) for line in lines]


LATEX_LINE = {"": 84, r"\small": 92, r"\footnotesize": 104}
"""size → characters that one line of a `tabular` holds in article's 345 pt."""
LATEX_WORDS = 26
"""Characters after which words in a table are broken into lines."""


def _latex_widths(table: Table) -> list[int]:
    """Characters of the stub and of each column, words broken at LATEX_WORDS."""
    stub = max([len(table.stub), *(len(t) for r in table.rows for t in (r.label, *r.under))])
    columns = [_column_width(table, place) - 1 for place in range(len(table.columns))]
    return [min(width, LATEX_WORDS) for width in (stub, *columns)]


def _latex_blocks(widths: list[int], room: int, kept: Collection[int] = ()) -> list[list[int]]:
    """The columns in as many blocks as fit `room` characters, the stub standing in each.

    Args:
        kept: columns that stand beside the one before them, whatever the block.
    """
    blocks: list[list[int]] = [[]]
    left = room - widths[0]
    for place, width in enumerate(widths[1:]):
        if blocks[-1] and width + 2 > left:
            along = [blocks[-1].pop()] if place in kept and len(blocks[-1]) > 1 else []
            blocks.append(along)
            left = room - widths[0] - sum(widths[p + 1] + 2 for p in along)
        blocks[-1].append(place)
        left -= width + 2
    return blocks


def _latex_column(width: int, prose: bool) -> str:
    """Words that are broken into lines get a width, half an em a character."""
    return f"p{{{width / 2:g}em}}" if width == LATEX_WORDS else "rl"[prose]


def to_latex(table: Table) -> str:
    r"""A `table` float with booktabs rules; needs `\usepackage{booktabs}` alone.

    A table that is wider than article's text is set smaller; one that still is comes as several
    floats, each with some of the columns.
    """
    widths = _latex_widths(table)
    # A verdict is read beside its p.
    kept = {place for place, name in enumerate(table.columns) if name in table.prose and place}
    size = next((s for s, room in LATEX_LINE.items() if len(_latex_blocks(widths, room)) == 1), "")
    size = size or r"\footnotesize" * (len(_latex_blocks(widths, LATEX_LINE[""])) > 1)
    blocks = _latex_blocks(widths, LATEX_LINE[size], kept)
    lines = []
    for number, places in enumerate(blocks, start=1):
        title = table.title + (", further columns" if number > 1 else "")
        label = table.name.replace("_", "-") + (f"-{number}" if number > 1 else "")
        stub = "l" if widths[0] < LATEX_WORDS else _latex_column(LATEX_WORDS, prose=True)
        heads = (table.stub, *(table.columns[place] for place in places))
        here = [widths[0], *(widths[place + 1] for place in places)]
        lines += [
            r"\begin{table}",
            r"\centering",
            *([size] if size else []),
            rf"\caption{{{_latex_text(title)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{stub}"
            + "".join(_latex_column(widths[p + 1], table.columns[p] in table.prose) for p in places)
            + "}",
            r"\toprule",
            _latex_line([_latex_text(head) for head in heads], here),
            r"\midrule",
        ]
        group = table.rows[0].group if table.rows else ""
        for row in table.rows:
            if row.group != group:
                lines.append(r"\midrule")
                group = row.group
            lines += _latex_row(row, places, here)
        lines += [r"\bottomrule", r"\end{tabular}"]
        if number == len(blocks):
            for note in table.notes:
                lines += ["", rf"\smallskip{{\footnotesize {_latex_text(note)}\par}}"]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _html_under(under: tuple[str, ...]) -> str:
    # A space keeps an empty line as high as the others, so that lines align across the row.
    return "".join(f'<span class="under">{html.escape(line) or "&nbsp;"}</span>' for line in under)


def _html_entry(entry: Entry, places: Mapping[str, int], prose: bool) -> str:
    text = html.escape(entry.text)
    shown = f"<strong>{text}</strong>" if entry.best else text
    order = "" if entry.order is None else f' data-order="{entry.order!r}"'
    if places and entry.keys:
        behind = " ".join(str(places[key]) for key in entry.keys)
        shown = f'<button type="button" class="open" data-cells="{behind}">{shown}</button>'
    side = ' class="prose"' if prose else ""
    return f"<td{order}{side}>{shown}{_html_under(entry.under)}</td>"


def html_fragment(table: Table, places: Mapping[str, int] | None = None) -> str:
    """`<figure>` with the table.

    Args:
        table: the table.
        places: key → place among the report's cells; every number that aggregates cells then
            becomes a button that names their places.
    """
    heads = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in (table.stub, *table.columns))

    def line(row: Row, breaks: bool) -> str:
        entries = "".join(
            _html_entry(entry, places or {}, column in table.prose)
            for column, entry in zip(table.columns, row.entries, strict=True)
        )
        start = '<tr class="block">' if breaks else "<tr>"
        stub = html.escape(row.label) + _html_under(row.under)
        return f'{start}<th scope="row">{stub}</th>{entries}</tr>'

    previous = [table.rows[0].group if table.rows else "", *(row.group for row in table.rows)]
    body = "\n".join(
        line(row, row.group != before) for row, before in zip(table.rows, previous, strict=False)
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f'<figure class="table" id="table-{html.escape(table.name)}">\n'
        f"<figcaption>{html.escape(table.title)}</figcaption>\n"
        f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n'
        f'</tbody>\n</table></div>\n<ul class="notes">{notes}</ul>\n</figure>\n'
    )


_PAGE_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1b1b1b}"
    "figure{margin:0}figcaption{font-weight:600;margin-bottom:.6rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse}"
    "thead th{border-top:2px solid;border-bottom:1px solid}tbody tr:last-child>*"
    "{border-bottom:2px solid}th,td{padding:.35rem .8rem;text-align:right;vertical-align:top}"
    "th[scope=row],thead th:first-child{text-align:left;font-weight:normal}"
    "td.prose{text-align:left}tr.block>*{border-top:1px solid}"
    ".under{display:block;color:#595959;font-size:.82em}.notes{color:#444;font-size:.9em}"
)


def to_html(table: Table) -> str:
    """A page of its own, without scripts or network."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(table.title)}</title><style>{_PAGE_STYLE}</style></head><body>\n"
        f"{html_fragment(table)}</body></html>\n"
    )


def to_csv(table: Table) -> str:
    """Long form, one line per entry: row, column, the printed text and the numbers behind it."""
    names = sorted({name for row in table.rows for entry in row.entries for name in entry.values})
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(map(csv_text, ["group", "row", "column", "text", "under", "best", *names]))
    for row in table.rows:
        for column, entry in zip(table.columns, row.entries, strict=True):
            values = [entry.values.get(name, "") for name in names]
            under = "; ".join(entry.under)
            writer.writerow(
                map(
                    csv_text,
                    [row.group, row.label, column, entry.text, under, int(entry.best), *values],
                )
            )
    return sink.getvalue()


def _column_width(table: Table, place: int) -> int:
    texts = [table.columns[place]]
    for row in table.rows:
        texts += [row.entries[place].text, *row.entries[place].under]
    return max(map(len, texts)) + 1


def _parts(table: Table, width: int) -> list[list[int]]:
    """The columns in as many blocks as the terminal needs, each column whole."""
    stub = max([len(table.stub), *(len(t) for r in table.rows for t in (r.label, *r.under))]) + 2
    parts: list[list[int]] = [[]]
    room = width - stub
    for place in range(len(table.columns)):
        needs = _column_width(table, place)
        if parts[-1] and needs > room:
            parts.append([])
            room = width - stub
        parts[-1].append(place)
        room -= needs
    return parts


def print_table(table: Table, console: Console) -> None:
    """The table on the terminal; one that is too wide comes in blocks of columns."""
    for number, places in enumerate(_parts(table, console.width)):
        title = table.title if number == 0 else "… further columns"
        shown = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=0)
        shown.add_column(table.stub, justify="left", no_wrap=True)
        for place in places:
            prose = table.columns[place] in table.prose
            shown.add_column(table.columns[place], justify="left" if prose else "right")
        for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
            mine = [row.entries[place] for place in places]
            if number and all(e.text == MISSING and not any(e.under) for e in mine):
                continue  # a line of the paper that none of these columns has
            entries = []
            for entry in mine:
                text = Text(entry.text, style="bold" if entry.best else "")
                for under in entry.under:
                    text.append(f"\n{under}", style="dim")
                entries.append(text)
            last = following is not None and following.group != row.group
            stub = Text(row.label)
            for under in row.under:
                stub.append(f"\n{under}", style="dim")
            shown.add_row(stub, *entries, end_section=last)
        console.print(shown)
    for note in table.notes:
        console.print(Text(f"· {note}", style="dim"))


FORMATS = {"md": to_markdown, "tex": to_latex, "csv": to_csv, "html": to_html}
"""suffix → writer; every table is written in each."""
