"""From `name=value` on a command line to a pattern: values are read as the signatures of the patterns say.

Values look as in YAML: 4, 0.5, true, null, text, [1, 16]. An option that takes patterns is given them as calls, such as
`patterns='[window(window=4), random]'`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .. import patterns
from ..patterns import Pattern


def pattern_names() -> list[str]:
    return sorted(name for name in patterns.__all__ if inspect.isfunction(getattr(patterns, name)))


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options of a pattern, which are keyword-only, with resolved type hints."""
    function = getattr(patterns, name)
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: parameter.replace(annotation=hints[parameter.name])
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def build(name: str, texts: Mapping[str, str]) -> Pattern:
    """The pattern with its options filled in, to be called with a number of tokens.

    Raises ValueError for an unknown pattern or option, a missing option, and a value of the wrong type.
    """
    options = _known_options(name, texts)
    return _filled(name, {option: _read(option, text, options[option].annotation) for option, text in texts.items()})


def described(hint: Any) -> str:
    """A type hint in the words of somebody who types a command."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if hint in words:
        return words[hint]
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if _is_union(hint):
        kinds = [
            kind for kind in get_args(hint) if _can_be_typed(kind) and not (kind is str and Path in get_args(hint))
        ]
        return " or ".join(sorted(map(described, kinds), key=lambda word: word == "null"))
    if _is_list(hint):
        return f"a list, each item {described(_item(hint))}"
    if _is_pattern(hint):
        return "a pattern, such as window(window=4)"
    return getattr(hint, "__name__", str(hint))


def unknown(name: str, kind: str, names: Collection[str]) -> str:
    """What there is instead, and what was probably meant."""
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}{kind}: {', '.join(names) or 'none'}"


def _known_options(name: str, given: Collection[str]) -> dict[str, inspect.Parameter]:
    if name not in pattern_names():
        raise ValueError(f"pattern={name}: there is no such pattern; {unknown(name, 'patterns', pattern_names())}")
    options = options_of(name)
    for option in given:
        if option not in options:
            raise ValueError(
                f"{option}: the pattern {name} has no such option; {unknown(option, 'its options', list(options))}"
            )
    return options


def _filled(name: str, values: Mapping[str, Any]) -> Pattern:
    for option, parameter in options_of(name).items():
        if parameter.default is parameter.empty and option not in values:
            raise ValueError(
                f"{option}: the pattern {name} needs it; give {option}=..., {described(parameter.annotation)}"
            )
    return partial(getattr(patterns, name), **values)


def _read(option: str, text: str, hint: Any) -> Any:
    """Text and paths as they stand, everything else as an expression of literals and calls, which is not evaluated."""
    kinds = get_args(hint) if _is_union(hint) else (hint,)
    if any(kind in (str, Path) for kind in kinds):
        return text
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"{option}={text}: expected {described(hint)}") from None
    return _convert(option, node, hint)


def _convert(option: str, node: ast.expr, hint: Any) -> Any:
    """The value of an expression, or ValueError that says what the hint asks for."""
    if _is_union(hint):
        for kind in get_args(hint):
            if _may_be(node, kind):
                return _convert(option, node, kind)
    elif _may_be(node, hint):
        if _is_list(hint):
            return [_convert(option, item, _item(hint)) for item in _items(node)]
        if _is_pattern(hint):
            return _pattern_of_call(option, node)
        return hint(_literal(node)) if hint is float else _literal(node)
    raise ValueError(f"{option}={_shown(node)}: expected {described(hint)}")


def _may_be(node: ast.expr, hint: Any) -> bool:
    """Whether an expression has the form that a hint asks for; items of lists are looked at later."""
    if _is_list(hint):
        return isinstance(node, ast.List | ast.Tuple)
    if _is_pattern(hint):
        return isinstance(node, ast.Name | ast.Call)
    value = _literal(node)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return type(value) in (int, float)
    return isinstance(hint, type) and type(value) is hint


_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


def _literal(node: ast.expr) -> Any:
    """A number, a text, true, false or null; an Ellipsis, which no option takes, for every other expression."""
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id, node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and type(_literal(node.operand)) in (int, float):
        return -_literal(node.operand)
    return node.value if isinstance(node, ast.Constant) else ...


def _items(node: ast.expr) -> Sequence[ast.expr]:
    return node.elts if isinstance(node, ast.List | ast.Tuple) else ()


def _pattern_of_call(option: str, node: ast.expr) -> Pattern:
    function = node.func if isinstance(node, ast.Call) else node
    plain = not isinstance(node, ast.Call) or (not node.args and all(word.arg for word in node.keywords))
    if not isinstance(function, ast.Name) or not plain:
        raise ValueError(f"{option}={_shown(node)}: expected a pattern with named options, such as window(window=4)")
    words = {str(word.arg): word.value for word in node.keywords} if isinstance(node, ast.Call) else {}
    options = _known_options(function.id, words)
    return _filled(
        function.id, {name: _convert(name, value, options[name].annotation) for name, value in words.items()}
    )


def _shown(node: ast.expr) -> str:
    return ast.unparse(node)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _can_be_typed(hint: Any) -> bool:
    """Patterns may also come by name, from a config; a list of them says the same here."""
    return not (isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping))


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping)


def _item(hint: Any) -> Any:
    return get_args(hint)[0]


def _is_pattern(hint: Any) -> bool:
    return get_origin(hint) is Callable
