"""A document of sections, as one self-contained HTML page and as Markdown.

All content is plain text: nothing in a column name or a configured sentence becomes markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from markupsafe import Markup

STYLE = Path(__file__).with_name("page.css")

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~!])")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
      head: titles of the columns.
      rows: each as long as the head.
      numbers: whether the other columns are numbers and right-aligned.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = False


@dataclass(frozen=True)
class Code:
    """Code to copy verbatim."""

    text: str


@dataclass(frozen=True)
class Figures:
    """Charts; as Markdown, only their titles.

    Attributes:
      charts: title → SVG, from `fraud.report.charts`.
    """

    charts: Mapping[str, Markup]


Block = Text | Items | Table | Code | Figures


@dataclass(frozen=True)
class Section:
    """A titled section."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A document with its sections."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def to_html(document: Document) -> str:
    """The document as a page that loads nothing and follows the reader's light or dark setting."""
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">",
        f"<title>{escape(document.title)}</title>",
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>",
        "<main>",
        f"<header><h1>{escape(document.title)}</h1><p>{escape(document.subtitle)}</p></header>",
    ]
    for section in document.sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts += [_block_html(block) for block in section.blocks]
        parts.append("</section>")
    return "\n".join([*parts, "</main>", "</html>", ""])


def to_markdown(document: Document) -> str:
    """The document as GitHub Flavored Markdown, which has tables."""
    parts = [f"# {_markdown(document.title)}", _markdown(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {_markdown(section.title)}")
        parts += [_block_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block_html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Items):
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Code):
        return f'<pre tabindex="0"><code>{escape(block.text)}</code></pre>'
    if isinstance(block, Figures):
        shown = [
            f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>"
            for title, chart in block.charts.items()
        ]
        return f'<div class="charts">{"".join(shown)}</div>'
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in block.head)
    rows = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in block.rows
    ]
    kind = ' class="numbers"' if block.numbers else ""
    return (
        f'<div class="table" role="region" aria-label="{escape(block.head[0])}" tabindex="0">'
        f"<table{kind}><thead><tr>{head}</tr></thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _block_markdown(block: Block) -> str:
    if isinstance(block, Text):
        return _markdown(block.text)
    if isinstance(block, Items):
        return "\n".join(f"- {_markdown(item)}" for item in block.items)
    if isinstance(block, Code):
        longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}\n{block.text}\n{fence}"
    if isinstance(block, Figures):
        return _markdown(f"The page also shows: {', '.join(block.charts)}.")
    head, *rows = [[_markdown(cell) for cell in row] for row in (block.head, *block.rows)]
    rule = ["---", *(["---:" if block.numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _markdown(text: str) -> str:
    """Escapes text for Markdown and the HTML in it, on one line."""
    plain = escape(" ".join(text.split()), quote=False)
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", _MARKDOWN.sub(r"\\\1", plain))
