"""Patterns that are made of patterns."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..layouts import Layout
from ..rules import Rule

Pattern = Callable[[int], Layout]
"""From a number of tokens to a layout."""


def layouts_of(num_tokens: int, patterns: Mapping[str, Pattern] | Sequence[Pattern]) -> list[Layout]:
    """The layout of each part. Raises ValueError that says which part refused, and why."""
    parts = []
    for name, pattern in _named(patterns):
        with _named_in_errors(f"patterns.{name}"):
            parts.append(pattern(num_tokens))
    return parts


def rules_of(num_tokens: int, patterns: Mapping[str, Pattern] | Sequence[Pattern]) -> list[Rule]:
    """The rule of each part. Raises ValueError as `rule_of` does."""
    return [rule_of(f"patterns.{name}", pattern, num_tokens) for name, pattern in _named(patterns)]


def rule_of(option: str, pattern: Pattern, num_tokens: int) -> Rule:
    """Raises ValueError, under the name of the option, for a pattern that refuses or has no rule."""
    with _named_in_errors(option):
        return pattern(num_tokens).rule


@contextmanager
def _named_in_errors(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        about_an_option = re.match(r"\w+(\.\w+)*=", str(error))
        raise ValueError(f"{option}{'.' if about_an_option else ': '}{error}") from error


def _named(patterns: Mapping[str, Pattern] | Sequence[Pattern]) -> Iterator[tuple[str, Pattern]]:
    if not patterns:
        raise ValueError(f"patterns={patterns!r}: expected one or more patterns")
    if isinstance(patterns, Mapping):
        yield from patterns.items()
    else:
        yield from ((str(number), pattern) for number, pattern in enumerate(patterns))
