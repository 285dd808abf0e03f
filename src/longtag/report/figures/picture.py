"""A figure with the words that belong to it."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """name: of its file and its place in the page, such as learning_curves.

    title:   a heading.
    caption: what is shown, and how to read it.
    figure:  drawn in the style of the report.
    """

    name: str
    title: str
    caption: str
    figure: Figure
