"""How well a run annotates the shipped genome, beside other gene finders: `python -m benchmarks.annotation FOLDER`.

Reads the confusion matrix that the test of a run with `data.track=coarse` or `fine` has left. Three-way: not coding,
coding on the + strand, on the - strand; five-way: RNA of either strand apart, the classes of track coarse. Bases that
are pseudogene alone count for neither, as track coarse leaves them out. The figures beside it were measured on the same
test blocks, fitted on the same training blocks; Prodigal knows no RNA, pseudogenes or repeats.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

CODING = ("CDS", "start codon", "stop codon")
UNCERTAIN = "pseudogene"


class Quality(NamedTuple):
    """Shares of bases that are right; f1_macro of the classes that the run knows."""

    three_way: float
    five_way: float
    f1_macro: float | None


OTHERS = {
    "longest open reading frame of 300 bases and more": Quality(0.935, 0.919, None),
    "hidden Markov model of order 5, 7 states": Quality(0.936, 0.918, None),
    "Prodigal, windows of 100,000 bases": Quality(0.9931, 0.9748, 0.547),
}


def quality(class_names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Quality:
    """confusion: (classes, classes) bases, rows are labels."""
    return Quality(
        _share_right(class_names, confusion, coding_strand), _share_right(class_names, confusion, coarse), f1(confusion)
    )


def coding_strand(name: str) -> str:
    """The strand that a class codes on, or nothing."""
    return name[-1] if name.startswith(CODING) else ""


def coarse(name: str) -> str:
    """The class of track coarse that a class of either track belongs to."""
    if strand := coding_strand(name):
        return f"CDS{strand}"
    return f"RNA{name[-1]}" if "RNA" in name else "intergenic"


def _share_right(class_names: Sequence[str], confusion: Sequence[Sequence[int]], group: Callable[[str], str]) -> float:
    groups = [group(name) for name in class_names]
    right = total = 0
    for name, label, row in zip(class_names, groups, confusion, strict=True):
        if name != UNCERTAIN:
            right += sum(bases for predicted, bases in zip(groups, row, strict=True) if predicted == label)
            total += sum(row)
    return right / total


def f1(confusion: Sequence[Sequence[int]]) -> float:
    """Mean of 2 right / (labelled + predicted) over the classes that occur or are predicted."""
    columns = list(zip(*confusion, strict=True))
    sizes = [sum(row) + sum(column) for row, column in zip(confusion, columns, strict=True)]
    scores = [2 * confusion[place][place] / size for place, size in enumerate(sizes) if size]
    return sum(scores) / len(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.annotation", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a run on the shipped genome, tested")
    options = parser.parse_args(arguments)
    path = options.folder / "figures" / "evaluation.json"
    if not path.is_file():
        parser.exit(2, f"error: folder={options.folder}: there is no {path}; it is written by the test of a run\n")
    evaluation = json.loads(path.read_text())
    found = quality(evaluation["class_names"], evaluation["confusion"])
    print("| | three-way accuracy | five-way accuracy | macro F1 of all classes |\n|---|---|---|---|")
    for name, figures in {str(options.folder): found, **OTHERS}.items():
        print(f"| {name} | " + " | ".join("" if figure is None else f"{figure:.4f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
