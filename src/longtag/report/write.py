"""Draw a report and put it into its folder: page, Markdown, CSV and the figures as PNG, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from longtag.report.document import Document, report_of_run, report_of_runs
from longtag.report.page import as_page
from longtag.report.runs import is_run, read
from longtag.report.style import as_png, as_svg, styled
from longtag.report.tables import as_markdown
from sparse_attention.pictures.file import write_whole


def write_report(folder: Path) -> Path:
    """Report on a run or on a sweep, in its own folder: report.html, report.md, report.csv and figures/*.png.

    Returns the page's path.

    Raises:
        UsageError: there is no run in the folder.
        OSError: it cannot be written to.
    """
    write_document(describe([folder]), folder)
    return folder / "report.html"


def describe(folders: Sequence[Path]) -> Document:
    """The report of one run, where its folder alone is given, or else the comparison of all that are found."""
    runs = read(folders)
    with styled():
        if len(folders) == 1 and is_run(folders[0]):
            return report_of_run(runs[0])
        return report_of_runs(runs, ", ".join(folder.resolve().name for folder in folders))


def write_document(document: Document, folder: Path) -> dict[str, bytes]:
    """Write the report's files into a folder; returns its figures as PNG, by name."""
    with styled():
        # Everything is drawn before anything is written.
        svg_of = {picture.name: as_svg(picture.figure) for picture in document.pictures}
        png_of = {picture.name: as_png(picture.figure) for picture in document.pictures}
    files = {f"figures/{name}.png": png for name, png in png_of.items()}
    files["report.html"] = as_page(document, svg_of).encode()
    files["report.md"] = _as_markdown(document).encode()
    files["report.csv"] = document.csv.encode()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    return png_of


def _as_markdown(document: Document) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in document.facts.items())
    parts = [f"# {document.title}\n\n{document.lead}\n\n{facts}"]
    parts += [f"{document.by_task.caption}\n\n{as_markdown(document.by_task)}"] if document.by_task else []
    parts += [as_markdown(document.table)]
    if document.problems:
        parts.append(f"{document.problems.caption}\n\n{as_markdown(document.problems)}")
    for section in document.sections:
        parts.append(f"## {section.heading}\n" if section.heading else "")
        parts += [
            f"![{picture.title}](figures/{picture.name}.png)\n\n{picture.caption}\n" for picture in section.pictures
        ]
    return "\n".join(part for part in parts if part)
