"""Draw a pattern: `python -m sparse_attention.show pattern=NAME tokens=N [option=value ...] [out=FILE]`."""

from __future__ import annotations

import inspect
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from .. import patterns
from ..pictures.file import check_path
from . import show
from .arguments import build, described, options_of, pattern_names

USAGE = """\
usage: python -m sparse_attention.show pattern=NAME tokens=N [option=value ...] [out=FILE]

Draws which keys each query sees, with the cost of the pattern beside that of dense attention.

  pattern=NAME   one of those below; an option that takes patterns is given calls, such as
                 patterns='[window(window=4), random(seed=1)]'
  tokens=N       length of the sequence
  out=FILE       also a figure, .png, .svg or .pdf, with histograms of degrees and of keys a query
"""


def main(arguments: Sequence[str]) -> int:
    """0 when the pattern was drawn, 2 when an argument cannot be used, with a message on stderr."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{USAGE}\n{_options_of_all()}")
        return 0 if arguments else 2
    try:
        _draw(_values(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; what is left must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: out: the figure could not be written ({error.strerror}); give another file", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate" not in str(error):
            raise
        print("error: tokens: this machine has too little memory for so many; give fewer", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _values(arguments: Sequence[str]) -> dict[str, str]:
    values = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{argument}: expected name=value, such as tokens=1000; --help lists the names")
        if name in values:
            raise ValueError(f"{argument}: {name} is given twice")
        values[name] = value
    for name, example in (("pattern", f"one of {', '.join(pattern_names())}"), ("tokens", "such as tokens=1000")):
        if name not in values:
            raise ValueError(f"{name}: missing; give {name}=..., {example}")
    return values


def _draw(values: dict[str, str]) -> None:
    title = "  ".join(f"{name}={value}" for name, value in values.items() if name != "out")
    name, tokens, out = values.pop("pattern"), values.pop("tokens"), values.pop("out", None)
    if not tokens.isascii() or not tokens.replace("_", "").isdecimal() or int(tokens) < 1:
        raise ValueError(f"tokens={tokens}: expected a whole number, 1 or more")
    if out is not None:
        check_path(Path(out), "out")
    show(build(name, values)(int(tokens)), out, title=title)
    if out is not None:
        print(f"\nfigure: {Path(out)}")


def _options_of_all() -> str:
    lines = ["patterns and their options; those without a value must be given:"]
    for name in pattern_names():
        summary = _first_sentence(inspect.getdoc(getattr(patterns, name)) or "")
        lines += ["", *textwrap.wrap(f"{name}: {summary}", 96, initial_indent="  ", subsequent_indent="    ")]
        for option, parameter in options_of(name).items():
            given = "" if parameter.default is parameter.empty else _as_typed(parameter.default)
            lines.append(f"    {f'{option}={given}':22} {described(parameter.annotation)}")
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[^.])\. +(?=[A-Z])", paragraph)[0].removesuffix(".")


def _as_typed(value: object) -> str:
    """As YAML writes it, and as it is read here."""
    if inspect.isfunction(value):
        return value.__name__
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
