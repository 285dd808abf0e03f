"""Rules that span several options, and those that the types of Lightning's arguments do not say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from longtag.errors import shown
from longtag.folder import NO_PATH

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
    "overfit_batches": "use debug=overfit, or crops.distinct=1",
    "fast_dev_run": "use debug=fast",
    "barebones": "use callbacks=none logger=none",
}
"""Arguments of Lightning's Trainer that run.py gives itself, and what to do instead of changing them."""


ABOVE_ZERO = {
    "val_check_interval": "a number of batches above 0",
    "accumulate_grad_batches": "a number of batches above 0",
    "num_nodes": "1 or more machines",
    "gradient_clip_val": "a norm above 0, or null for no clipping",
}
"""Numbers of the Trainer that it takes though it cannot work with them, or means something else by them."""


def rule_problems(values: dict[str, Any], *, elsewhere: bool) -> Iterator[str]:
    """What is wrong with a config whose options fit their signatures; each message names the option to change.

    values: the config as plain dicts and lists. elsewhere: as in `config.check`.
    """
    trainer = values["trainer"]
    for name in trainer.keys() & TRAINER_SET_BY_RUN:
        yield f"trainer.{name}={shown(trainer[name])}: set by the run itself; {TRAINER_SET_BY_RUN[name]}"
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
    yield from _interval_problems(trainer)
    for group in ("callbacks", "logger"):
        for name, node in values[group].items():
            if node is not None and not (isinstance(node, dict) and "_target_" in node):
                yield f"{group}.{name}={shown(node)}: expected a node with a _target_, or null to leave it out"
    if str(trainer["precision"]) in ("bf16-true", "16-true") and keeps_a_mean(values["callbacks"]):
        yield (
            f"trainer.precision={trainer['precision']}: a mean of weights in 16 bits stands still, since what a step "
            "adds is rounded away; give trainer.precision=bf16-mixed, or callbacks=default"
        )
    step = _node(values["callbacks"], "memory_timeline").get("step")
    if step is not None and not 1 <= step <= trainer["max_steps"]:
        yield (
            f"callbacks.memory_timeline.step={step}: expected a step of the run, from 1 to "
            f"trainer.max_steps={trainer['max_steps']}, or null for none"
        )
    if values["optim"].get("in_backward"):
        yield from _in_backward_problems(trainer, _node(values["callbacks"], "non_finite").get("action"))
    if values["optim"].get("update", "nearest") != "nearest" and trainer["precision"] != "bf16-true":
        yield (
            f"optim.update={values['optim']['update']}: says how weights in bfloat16 are rounded, and with "
            f"trainer.precision={shown(trainer['precision'])} there are none; give trainer.precision=bf16-true, or "
            "optim.update=nearest"
        )
    yield from _head_problems(values["pattern"], values["model"].get("num_heads"))
    if values["resume"] not in ("auto", "never") and not Path(values["resume"]).is_file():
        yield f"resume={values['resume']}: no such checkpoint; expected auto, never, or the path of a .ckpt file"
    monitored = values["monitor"].split("/")[0]
    if monitored != "val":
        yield f"monitor={values['monitor']}: expected a key of the validation, for example val/f1_macro or val/loss"


def _interval_problems(trainer: dict[str, Any]) -> Iterator[str]:
    interval, batches = trainer["val_check_interval"], trainer["accumulate_grad_batches"]
    if isinstance(interval, float):
        yield f"trainer.val_check_interval={interval}: crops never run out; give a whole number of batches"
    elif interval and batches > 0 and interval % batches:
        yield (
            f"trainer.val_check_interval={interval}: the validation would come between the batches of a step; give a "
            f"multiple of trainer.accumulate_grad_batches={batches}"
        )


def _node(group: dict[str, Any], name: str) -> dict[str, Any]:
    """A node of a group, empty where it is left out."""
    node = group.get(name)
    return node if isinstance(node, dict) else {}


def keeps_a_mean(callbacks: dict[str, Any]) -> bool:
    """Whether one of the callbacks of a config is `Averaging`."""
    return any(_node(callbacks, name).get("_target_", "").endswith("averaging.Averaging") for name in callbacks)


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
