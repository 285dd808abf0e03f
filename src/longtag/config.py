"""Check a composed config against the signatures that it will build, before anything is built.

The constructors are the schema: every node with a ``_target_`` is held against the type hints of what it names, so an
option is declared in one place only. What they cannot say is in `config_rules`. No value is changed here.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin

from hydra.utils import get_method, get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from longtag.config_rules import rule_problems
from longtag.errors import UsageError, shown, unknown_option

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def top_level(
    *,
    tokens: int,
    seed: int,
    implementation: str,
    matmul_precision: Literal["highest", "high", "medium"],
    compile: bool,
    classes: int | None,
    resume: str,
    test: bool,
    report: bool,
    monitor: str,
    folder: str,
) -> None:
    """The options of train.yaml that belong to no group; only the signature is used."""


def check(config: DictConfig, choices: Mapping[str, str], *, elsewhere: bool = False) -> None:
    """Raise one UsageError that lists every option that cannot be used.

    Args:
        config: the composed config, without Hydra's own node.
        choices: the chosen file of each config group, for example ``{"pattern": "window"}``.
        elsewhere: whether it is to be run on another machine, which may have a GPU where this one has none.
    """
    try:
        values = plain(config)
    except MissingMandatoryValue as error:
        raise UsageError(f"{error.full_key}: has no default; give {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    misfits = dict(
        [
            *_signature_problems(
                "",
                {name: value for name, value in values.items() if not isinstance(value, dict)},
                top_level,
                "train.yaml",
            ),
            *_node_problems("", values, choices),
        ]
    )
    # What only repeats another option, such as crops.length=${tokens}, is mended there.
    problems = [text for path, text in misfits.items() if _repeated(config, path) not in misfits]
    if not problems:
        problems = list(rule_problems(values, elsewhere=elsewhere))
    if problems:
        raise UsageError("\n".join(problems))


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain dicts and lists, everything resolved; raises for what is missing."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _repeated(config: DictConfig, path: str) -> str | None:
    """The option whose value an option takes over as it is, if it does."""
    parent, _, name = path.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or not OmegaConf.is_interpolation(node, name):
        return None
    written: Any = OmegaConf.to_container(node, resolve=False)
    found = re.fullmatch(r"\$\{([\w.]+)\}", str(written[name]))
    return found[1] if found else None


def _node_problems(path: str, node: dict[str, Any], choices: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Problems of a node and of every node below it, each behind the path of its option."""
    if "_target_" in node:
        target = str(node["_target_"])
        try:
            constructor = _locate(target)
        except Exception as error:
            yield f"{path}._target_", f"{path}._target_={target}: cannot be imported ({error})"
            return
        yield from _signature_problems(path, node, constructor, choices.get(path, target.rsplit(".", 1)[-1]))
    for name, value in node.items():
        for place, below in _nodes_below(f"{path}.{name}" if path else str(name), value):
            yield from _node_problems(place, below, choices)


def _nodes_below(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes that a value is or holds in a list, with their paths."""
    if isinstance(value, dict):
        yield path, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nodes_below(f"{path}.{number}", item)


def _signature_problems(
    path: str, node: dict[str, Any], constructor: Callable, owner: str
) -> Iterator[tuple[str, str]]:
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    parameters = inspect.signature(constructor).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = typing.get_type_hints(inspect.unwrap(function))
    for name, value in node.items():
        full_name = f"{path}.{name}" if path else name
        if name in HYDRA_KEYS:
            continue
        if name not in parameters:
            if not takes_any:
                yield full_name, unknown_option(full_name, owner, parameters)
        elif name in hints and not _builds_an_object(value) and not _fits(value, hints[name]):
            yield full_name, f"{full_name}={shown(value)}: expected {_described(hints[name])}"


def _locate(target: str) -> Callable:
    found = get_object(target)
    return found if inspect.isclass(found) else get_method(target)


def _builds_an_object(value: Any) -> bool:
    """Whether a value is itself built from a config node, and is then checked there."""
    if isinstance(value, dict):
        return "_target_" in value or any(_builds_an_object(item) for item in value.values())
    return isinstance(value, list) and any(_builds_an_object(item) for item in value)


def _fits(value: Any, hint: Any) -> bool:
    """Strict validation of JSON: a list may fill a tuple and an integer a float, but the text "5" is no number."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return True
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def _described(hint: Any) -> str:
    """A type hint in the words of somebody who writes YAML."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if hint in words:
        return words[hint]
    if hint is type(None):
        return "null"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        literals = [argument for argument in arguments if get_origin(argument) is Literal]
        alternatives = {_described(argument) for argument in arguments if argument not in literals}
        # In an order of our own: `typing` hands out the order in which a union was first written anywhere.
        choices = [str(choice) for literal in literals for choice in get_args(literal)]
        if choices:
            listed = ", ".join(choices if len(literals) == 1 else sorted(set(choices)))
            alternatives.add(f"one of {listed}" if len(choices) > 1 else listed)
        return " or ".join(sorted(alternatives, key=lambda word: (word == "null", word.startswith("a list"), word)))
    if origin is not None and issubclass(origin, Mapping):
        return "a mapping"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(map(_described, arguments))}"
    if origin is not None and arguments and issubclass(origin, typing.Collection):
        return "a list, each item " + _described(arguments[0])
    return getattr(hint, "__name__", str(hint))
