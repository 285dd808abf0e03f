"""Checks that all patterns make of their options."""

from collections.abc import Sequence

MOST = 2**31 - 1
"""Layouts store positions as int32."""


def check_at_least(minimum: int, **options: int) -> None:
    """Raise ValueError that names the first option which is no whole number from `minimum` to `MOST`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name}={value!r}: expected a whole number, {minimum} or more")
        if value > MOST:
            raise ValueError(f"{name}={value}: positions are numbers of 32 bits; give {MOST} or less")


def check_at_most(maximum: int, limit: str, **options: int) -> None:
    """Raise ValueError that names the first option above `maximum`, and `limit`, the option which that is."""
    for name, value in options.items():
        if value > maximum:
            raise ValueError(f"{name}={value}: expected at most {limit}={maximum}")


def check_list(minimum: int, example: str, **options: Sequence[int]) -> None:
    """Raise ValueError that names the first option which is no list of one or more whole numbers from `minimum` up."""
    for name, values in options.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name}={values!r}: expected a list of one or more whole numbers, such as {example}")
        for value in values:
            check_at_least(minimum, **{name: value})
