"""Check a composed config against the signatures that it will build, before anything is built.

The constructors are the schema: every node with a ``_target_`` is held against the type hints of what it names, so an
option is declared in one place only. Rules that span several options follow at the end. No value is changed here.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin

import torch
from hydra.utils import get_method, get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from longtag.errors import UsageError, unknown_option
from longtag.folder import NO_PATH

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}

TRAINER_SET_BY_RUN = {
    "logger": "choose with logger=...",
    "callbacks": "choose with callbacks=...",
    "plugins": "one that keeps checkpoints whole is in use",
    "default_root_dir": "choose with folder=...",
    "max_epochs": "crops never run out; give trainer.max_steps",
    "check_val_every_n_epoch": "crops never run out; give trainer.val_check_interval",
    "use_distributed_sampler": "the crops are shared out already",
    "num_sanity_val_steps": "use debug=fast",
    "enable_progress_bar": "choose with callbacks.progress",
    "enable_model_summary": "the start-up block says it",
}
"""Arguments of Lightning's Trainer that run.py gives itself, and what to do instead of changing them."""


ABOVE_ZERO = {
    "val_check_interval": "a number of batches above 0",
    "accumulate_grad_batches": "a number of batches above 0",
    "num_nodes": "1 or more machines",
    "gradient_clip_val": "a norm above 0, or null for no clipping",
}
"""Numbers of the Trainer that it takes though it cannot work with them, or means something else by them."""


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
        problems = list(_rule_problems(values, elsewhere=elsewhere))
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
            yield full_name, f"{full_name}={_shown(value)}: expected {_described(hints[name])}"


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


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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


def _rule_problems(values: dict[str, Any], *, elsewhere: bool) -> Iterator[str]:
    """Rules that span several options; each message names the option to change."""
    trainer = values["trainer"]
    for name in trainer.keys() & TRAINER_SET_BY_RUN:
        yield f"trainer.{name}={_shown(trainer[name])}: set by the run itself; {TRAINER_SET_BY_RUN[name]}"
    if values["tokens"] < 1:
        yield f"tokens={values['tokens']}: expected the length of a crop in tokens, 1 or more"
    if values["tokens"] >= 2**31:
        yield f"tokens={values['tokens']}: positions are numbers of 32 bits; give {2**31 - 1} or fewer"
    if not values["folder"].strip():
        yield NO_PATH
    if not 0 <= values["seed"] < 2**32:
        yield f"seed={values['seed']}: expected a number from 0 to {2**32 - 1}"
    if trainer["max_steps"] < 1:
        yield f"trainer.max_steps={trainer['max_steps']}: crops never run out; give the number of optimizer steps"
    for name, expected in ABOVE_ZERO.items():
        if trainer.get(name) is not None and trainer[name] <= 0:
            yield f"trainer.{name}={trainer[name]}: expected {expected}"
    if not _are_devices(trainer["devices"]):
        yield f"trainer.devices={trainer['devices']}: expected how many, 1 or more, or a list of their numbers"
    if trainer["accelerator"] in ("gpu", "cuda") and not torch.cuda.is_available() and not elsewhere:
        yield (
            f"trainer.accelerator={trainer['accelerator']}: this machine has no CUDA device; to try the same on the "
            "CPU, shorten the crops and the run: trainer.accelerator=cpu trainer.precision=32-true tokens=10000 "
            "trainer.max_steps=10"
        )
    step = values["callbacks"].get("memory_timeline", {}).get("step")
    if step is not None and not 1 <= step <= trainer["max_steps"]:
        yield (
            f"callbacks.memory_timeline.step={step}: expected a step of the run, from 1 to "
            f"trainer.max_steps={trainer['max_steps']}, or null for none"
        )
    if values["optim"].get("in_backward"):
        yield from _in_backward_problems(trainer, values["callbacks"].get("non_finite", {}).get("action"))
    if values["optim"].get("update", "nearest") != "nearest" and trainer["precision"] != "bf16-true":
        yield (
            f"optim.update={values['optim']['update']}: says how weights in bfloat16 are rounded, and with "
            f"trainer.precision={_shown(trainer['precision'])} there are none; give trainer.precision=bf16-true, or "
            "optim.update=nearest"
        )
    yield from _head_problems(values["pattern"], values["model"].get("num_heads"))
    if values["resume"] not in ("auto", "never") and not Path(values["resume"]).is_file():
        yield f"resume={values['resume']}: no such checkpoint; expected auto, never, or the path of a .ckpt file"
    monitored = values["monitor"].split("/")[0]
    if monitored != "val":
        yield f"monitor={values['monitor']}: expected a key of the validation, for example val/f1_macro or val/loss"


def _head_problems(pattern: dict[str, Any], num_heads: int | None) -> Iterator[str]:
    heads, own = pattern.get("heads"), pattern.get("num_heads")
    if num_heads and isinstance(heads, list) and sum(heads) != num_heads:
        yield (
            f"pattern.heads={heads}: they add up to {sum(heads)}, but the model has {num_heads} heads; change them, or "
            f"give model.num_heads={sum(heads)}"
        )
    if num_heads and own not in (None, num_heads):
        yield f"pattern.num_heads={own}: the model has {num_heads} heads; give pattern.num_heads={num_heads} or null"


def _in_backward_problems(trainer: dict[str, Any], non_finite: str | None) -> Iterator[str]:
    """What needs more than one gradient at a time, and so cannot be had where each is used up when it is ready."""
    needs = "optim.in_backward=true: a parameter is stepped, and its gradient gone, before "
    if trainer["gradient_clip_val"] is not None:
        yield f"{needs}the norm of all gradients is known that clipping needs; give trainer.gradient_clip_val=null"
    if trainer["accumulate_grad_batches"] != 1:
        yield f"{needs}the next batch adds to it; give trainer.accumulate_grad_batches=1"
    several_devices = trainer["devices"] not in (1, "1") and not _is_list_of_one(trainer["devices"])
    if several_devices or trainer["num_nodes"] != 1:
        yield f"{needs}it is averaged over devices; give trainer.devices=1 trainer.num_nodes=1"
    if trainer["precision"] in (16, "16", "16-mixed"):
        yield f"{needs}the loss scale of float16 is checked; give trainer.precision=bf16-mixed or 32-true"
    if non_finite == "skip":
        yield f"{needs}it is known to be finite; give callbacks.non_finite.action=stop"


def _are_devices(devices: Any) -> bool:
    if isinstance(devices, int):
        return devices == -1 or devices >= 1
    return isinstance(devices, list) or re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)*,?", str(devices)) is not None


def _is_list_of_one(devices: Any) -> bool:
    return isinstance(devices, list) and len(devices) == 1
