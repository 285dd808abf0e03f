"""Report on runs: `python -m longtag.report FOLDER [FOLDER ...] [--out FOLDER] [--log]`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longtag.errors import UsageError

if TYPE_CHECKING:
    from longtag.report.document import Document


def main(arguments: Sequence[str]) -> int:
    """0 when all was done, 2 when a folder cannot be used, 1 when the report was written but not logged.

    What went wrong is told on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m longtag.report",
        description="Tables and figures of a run, of a sweep, or of several runs side by side.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run, of a sweep, or above runs")
    parser.add_argument("--out", type=Path, help="where the report goes; by default the folder, or the one above all")
    parser.add_argument("--log", action="store_true", help="log a sweep's report to its W&B or TensorBoard as well")
    options = parser.parse_args(arguments)
    # After the arguments have been read, since this takes seconds.
    from longtag.report.tables import print_table
    from longtag.report.write import describe, write_document

    folders: list[Path] = options.folders
    out = options.out or (folders[0] if len(folders) == 1 else Path(os.path.commonpath([f.resolve() for f in folders])))
    try:
        if options.log and not (len(folders) == 1 and (folders[0] / "sweep.json").is_file()):
            raise UsageError("--log: expected the folder of one sweep; a single run logs its report at its end")
        document = describe(folders)
        pngs = write_document(document, out)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give another folder with --out", file=sys.stderr)
        return 2
    print(f"{document.title}: {document.lead}")
    for table in (document.by_task, document.table, document.problems):
        if table:
            print_table(table)
    print(f"report: {out / 'report.html'}, report.md, report.csv, figures/")
    return _log(folders[0], document, pngs) if options.log else 0


def _log(sweep: Path, document: "Document", pngs: Mapping[str, bytes]) -> int:
    from longtag.report.end_of_sweep import log_comparison

    try:
        places = log_comparison(sweep, document, pngs)
    except Exception as error:  # of a service that is out of reach, a full disk, a package that is missing
        print(f"error: the report is not logged: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(places) or "logged nowhere: the sweep has neither logger=wandb nor logger=tensorboard")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
