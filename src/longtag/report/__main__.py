"""Report on runs: `python -m longtag.report FOLDER [FOLDER ...] [--out FOLDER]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from longtag.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """0 when the report was written, 2 when a folder cannot be used, with a message on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m longtag.report",
        description="Tables and figures of a run, of a sweep, or of several runs side by side.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run, of a sweep, or above runs")
    parser.add_argument("--out", type=Path, help="where the report goes; by default the folder, or the one above all")
    options = parser.parse_args(arguments)
    # After the arguments have been read, since this takes seconds.
    from longtag.report.tables import print_table
    from longtag.report.write import describe, write_document

    folders: list[Path] = options.folders
    out = options.out or (folders[0] if len(folders) == 1 else Path(os.path.commonpath([f.resolve() for f in folders])))
    try:
        document = describe(folders)
        write_document(document, out)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give another folder with --out", file=sys.stderr)
        return 2
    print(f"{document.title}: {document.lead}")
    print_table(document.table)
    if document.problems:
        print_table(document.problems)
    print(f"report: {out / 'report.html'}, report.md, report.csv, figures/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
