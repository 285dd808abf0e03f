"""Checks that all patterns make of their options."""


def check_at_least(minimum: int, **options: int) -> None:
    """Raise ValueError that names the first option which is no whole number from `minimum` up."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name}={value!r}: expected a whole number, {minimum} or more")
