"""Estimates as tables in the terminal."""

import io
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from longtag.memory.estimate.estimate import Estimate, Layer

GIB = 2**30

CATEGORIES = ("weights", "gradients", "optimizer_states", "activations", "temporary")


def categories_as_text(estimate: Estimate) -> str:
    """The table of `show_categories` and the line below it."""
    console = Console(highlight=False, width=100, record=True, file=io.StringIO())
    console.print(_categories(estimate))
    return f"{console.export_text()}{_peak_in_words(estimate)}"


def show_categories(estimate: Estimate) -> None:
    """The peak, and what is alive then."""
    _print(_categories(estimate))
    print(_peak_in_words(estimate))


def _categories(estimate: Estimate) -> Table:
    table = Table("at the peak", "GiB", "share", box=box.ASCII2)
    for name in CATEGORIES:
        size = getattr(estimate, name)
        table.add_row(name.replace("_", " "), _gib(size), f"{size / estimate.peak:.0%}")
    table.add_row("sum", _gib(estimate.peak), "100%")
    return table


def _peak_in_words(estimate: Estimate) -> str:
    parts = {"batch": estimate.batch, "pattern's lists": estimate.lists, "workspaces of libraries": estimate.workspace}
    words = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
    if estimate.host:
        words += f"; {_gib(estimate.host)} GiB wait in host memory"
    return f"peak in the {estimate.when}; temporary has the {words}" if words else f"peak in the {estimate.when}"


def show_layers(layers: Sequence[Layer]) -> None:
    """What each layer needs; blocks that need the same in one row."""
    table = Table("layer, GiB", "weights", "gradients", "states", "kept", "while it runs", box=box.ASCII2)
    for _, alike in groupby(layers, key=_without_name):
        group = list(alike)
        name = group[0].name
        if len(group) > 1:
            name = f"{name} to {group[-1].name.removeprefix('block ')}, each"
        table.add_row(name.replace("block", "blocks") if len(group) > 1 else name, *map(_gib, _without_name(group[0])))
    _print(table)


def show_levers(rows: Iterable[tuple[str, Estimate]], room: int) -> None:
    """Row by row as they are counted: the peak with each set of levers, beside that of the first row."""
    first: Estimate | None = None
    table = Table("levers, GiB", "kept", "peak", "saved", "fits", "products", "time", box=box.ASCII2)
    for name, estimate in rows:
        first = first or estimate
        table.add_row(
            name,
            _gib(estimate.kept),
            _gib(estimate.peak),
            f"{1 - estimate.peak / first.peak:.0%}",
            "yes" if estimate.peak <= room else "no",
            f"{estimate.cost.products / first.cost.products:.2f}",
            f"{estimate.cost.seconds / first.cost.seconds:.2f}",
        )
    _print(table)


def _without_name(layer: Layer) -> tuple[int, ...]:
    return layer.weights, layer.gradients, layer.optimizer_states, layer.activations, layer.passing


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _print(table: Table) -> None:
    for column in table.columns:
        column.no_wrap = True
    Console(highlight=False, width=100).print(table)
