"""A report as one HTML page that needs no network and no other file."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from longtag.report.document import Document, Section
from longtag.report.figures.picture import Picture
from longtag.report.style import data_uri
from longtag.report.tables import Cell, Table

ASSETS = Path(__file__).parent / "assets"


def as_page(document: Document, svg_of: Mapping[str, bytes]) -> str:
    """HTML.

    svg_of: every picture of the document, by the name of its file.
    """
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in document.facts.items()
    )
    parts = [
        f"<header><h1>{escape(document.title)}</h1><p>{escape(document.lead)}</p><dl>{facts}</dl></header>",
        "<main>",
        _table(document.by_task) if document.by_task else "",
        _table(document.table),
        _table(document.problems) if document.problems else "",
        *(_section(section, svg_of) for section in document.sections),
        *(_table(table) for table in document.more),
        "</main>",
    ]
    style, script = ((ASSETS / name).read_text() for name in ("page.css", "sort.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _section(section: Section, svg_of: Mapping[str, bytes]) -> str:
    heading = f"<h2>{escape(section.heading)}</h2>" if section.heading else ""
    figures = [_figure(picture, svg_of[picture.name]) for picture in section.pictures]
    images = [_image(path) for path in section.images]
    return f"<section>{heading}{''.join(figures + images)}</section>"


def _figure(picture: Picture, svg: bytes) -> str:
    title, caption = escape(picture.title), escape(picture.caption)
    image = f'<img src="{data_uri(svg, "image/svg+xml")}" alt="{title}. {caption}">'
    return f'<figure id="{picture.name}"><h3>{title}</h3>{image}<figcaption>{caption}</figcaption></figure>'


def _image(path: Path) -> str:
    title = escape(path.stem.replace("_", " ").capitalize())
    image = f'<img class="paper" src="{data_uri(path.read_bytes(), "image/png")}" alt="{title}">'
    return f'<figure id="{escape(path.stem)}"><h3>{title}</h3>{image}</figure>'


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in table.heads)
    rows = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in table.rows)
    return (
        f'<div class="table"><table id="{escape(table.name)}"><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    kind = ' class="number"' if isinstance(cell.value, float | int) else ""
    lines = cell.text.splitlines()
    text = escape(cell.text)
    if len(lines) > 1:
        text = f"<details><summary>{escape(lines[-1])}</summary><pre>{text}</pre></details>"
    if cell.note:
        text += f"<small>{escape(cell.note)}</small>"
    return f'<td{kind} data-value="{escape(str(cell.value if len(lines) < 2 else lines[-1]))}">{text}</td>'
