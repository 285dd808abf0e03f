"""The one exception for everything that the user can mend, and the message for a misspelt option."""

import difflib
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
    """Input or configuration that cannot be used as given.

    The message names the option and the value given, says what is allowed and what to do; the entry script prints it
    alone, without a traceback.
    """


class OutOfMemory(RuntimeError):
    """The device had too little memory. The message says what was asked for, what is needed, and what would fit."""


def unknown_option(path: str, owner: str, allowed: Iterable[str]) -> str:
    """The message for an option that its owner does not have, with the nearest one that it has."""
    names = sorted(set(allowed))
    near = difflib.get_close_matches(path.rsplit(".", 1)[-1], names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}"
    return f"{path}: {owner} has no such option; {hint}"


def shown(value: Any) -> str:
    """A value as it is written in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
