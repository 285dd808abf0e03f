"""The Pareto front: what nothing else beats in every respect."""

from typing import NamedTuple


class Point(NamedTuple):
    """Figures of which more is better."""

    quality: float
    thrift: float
    speed: float


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in everything and better in something; equal points do not dominate."""
    return one != other and all(ours >= theirs for ours, theirs in zip(one, other, strict=True))
