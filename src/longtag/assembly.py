"""From a config to the parts of a run: the one place where ``hydra.utils.instantiate`` is called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.conf import HydraConf
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from longtag.announcement import describe_device, describe_layout, describe_step
from longtag.best_checkpoint import best_checkpoint
from longtag.callbacks.interruption import Interruption
from longtag.callbacks.last_checkpoint import LastCheckpoint
from longtag.callbacks.last_validation import LastValidation
from longtag.callbacks.resumption import Resumption
from longtag.callbacks.summary import Summary
from longtag.checkpoint_file import WholeCheckpoints
from longtag.compilation import compile_blocks
from longtag.config import plain
from longtag.config_rules import keeps_a_mean
from longtag.data import Source
from longtag.errors import UsageError
from longtag.folder import RunFolder
from longtag.loggers.jsonl import JsonlLogger
from longtag.memory import Levers
from longtag.memory.estimate import Subject
from longtag.memory.estimate.plan import Plan, planned
from longtag.model import TokenClassifier
from longtag.model.layout_cache import LayoutCache, Pattern
from longtag.precision import NarrowModel, weights_are_narrow
from longtag.provenance import provenance
from longtag.tagger import Tagger


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    facts: the lines of the start-up block, by name.
    """

    crops: L.LightningDataModule
    tagger: Tagger
    trainer: L.Trainer
    summary: Summary
    best: ModelCheckpoint
    metrics_file: JsonlLogger
    facts: dict[str, str]


def assemble(config: DictConfig, hydra_config: HydraConf, folder: RunFolder) -> Parts:
    """Build everything that a config names, without writing anything.

    Raises:
        UsageError: an option or an input that a constructor refuses, under the name of its group.
    """
    source: Source = _build(config, "data")
    crops: L.LightningDataModule = _build(config, "crops", source=source)
    device, plan = _device(config), _plan(config, source)
    tagger = _build_tagger(config, source, plan)
    precision = config.trainer.precision or _default_precision(config)
    layout = tagger.model.layouts.get(config.tokens, device)
    if layout.num_heads not in (None, config.model.num_heads):
        raise UsageError(
            f"pattern: it has lists for {layout.num_heads} heads, the model has {config.model.num_heads}; give "
            f"model.num_heads={layout.num_heads}, or a pattern for all heads"
        )
    implementation, why = tagger.model.explain(layout, device, _dtype(precision))
    choices, parameters = hydra_config.runtime.choices, sum(weight.numel() for weight in tagger.model.parameters())
    summary = Summary(
        folder,
        {
            "data": choices["data"],
            "pattern": choices["pattern"],
            "implementation": implementation,
            "tokens": config.tokens,
            "parameters": parameters,
            "chance": _chance(source),
            "seed": config.seed,
            "monitor": config.monitor,
            "device": describe_device(device),
            **provenance(),
            **({} if plan is None else {"memory_plan": plan.describe()}),
        },
    )
    best = best_checkpoint(config.monitor, tagger.val_scores.names, source, config.tokens, folder)
    metrics_file = JsonlLogger(folder.metrics)
    trainer = _build_trainer(config, precision, folder, metrics_file, [summary, best])
    facts = {
        "device": describe_device(device),
        "precision": precision,
        "data": source.description,
        "parameters": f"{parameters:,}",
        "pattern": f"{choices['pattern']}: {describe_layout(layout)}",
        "attention": why,
        **({} if plan is None else {"memory": f"auto: {plan.describe()}"}),
        "tokens a step": describe_step(trainer, config.crops.batch_size, config.tokens),
        "folder": str(folder.path),
    }
    return Parts(crops, tagger, trainer, summary, best, metrics_file, facts)


def pattern_of(config: DictConfig) -> Pattern:
    """The pattern that a config names."""
    return instantiate(config.pattern, _convert_="all")


def _build(config: DictConfig, group: str, **given: Any) -> Any:
    """Instantiate one node of the config; input that it refuses is reported under the node's name."""
    node = OmegaConf.select(config, group)
    # As a partial, so that what is given reaches the constructor as it is and is not merged into the config.
    constructor = instantiate(node, _convert_="all", _partial_=True)
    try:
        return constructor(**given)
    except UsageError as error:
        named = str(error).split("=")[0] in node
        raise UsageError(f"{group}.{error}" if named else str(error)) from error
    except (ValueError, MisconfigurationException, ImportError) as error:
        raise UsageError(f"{group}: {error}") from error


def _build_each(config: DictConfig, group: str, **given: Any) -> list[Any]:
    """All nodes of a group that holds several, but for those that are null."""
    return [_build(config, f"{group}.{name}", **given) for name, node in config[group].items() if node is not None]


def _plan(config: DictConfig, source: Source) -> Plan | None:
    """Which blocks keep what, if that is to be chosen.

    Raises:
        UsageError: nothing fits, or there is no device whose free memory could be the budget.
    """
    device = _device(config)
    if config.memory.checkpoint == "auto" and config.memory.budget_gib is None and device.type == "cpu":
        raise UsageError(
            "memory.budget_gib=null: takes what a card has free, and the run is on the CPU; give memory.budget_gib=4, "
            "or another number of GiB"
        )
    free, _ = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, 0)
    return planned(build_subject(config, device.type, source), free)[1]


def _build_tagger(config: DictConfig, source: Source, plan: Plan | None) -> Tagger:
    num_classes = _num_classes(config, source)
    model = model_builder(config, source)(
        pattern=pattern_of(config),
        implementation=config.implementation,
        levers=build_levers(config) if plan is None else plan.levers,
        levers_of_blocks=None if plan is None else plan.blocks,
    )
    if config.compile:
        compile_blocks(model)
    unused = num_classes - len(source.class_names)
    class_names = [*source.class_names, *(f"unused {label}" for label in range(unused))]
    return Tagger(
        model=model,
        loss=_build(config, "loss", class_counts=np.pad(source.class_counts("train"), (0, unused))),
        optimization=_build(config, "optim"),
        metrics=_build(config, "metrics", class_names=class_names),
    )


def _chance(source: Source) -> float:
    """Accuracy of a guess that is always the most frequent class of the training labels."""
    counts = source.class_counts("train")
    return float(counts.max() / max(counts.sum(), 1))


def model_builder(config: DictConfig, source: Source) -> Callable[..., TokenClassifier]:
    """What makes the model of a config, given a pattern, an implementation and levers.

    Raises:
        UsageError: fewer classes than the data has labels.
    """
    return partial(_build, config, "model", inputs=source.inputs, num_classes=_num_classes(config, source))


def _num_classes(config: DictConfig, source: Source) -> int:
    num_labels = len(source.class_names)
    num_classes = num_labels if config.classes is None else config.classes
    if num_classes < num_labels:
        raise UsageError(f"classes={num_classes}: the data has {num_labels} labels; give {num_labels} or more, or null")
    return num_classes


def build_subject(config: DictConfig, device_type: str, source: Source | None = None) -> Subject:
    """What the memory of a config's training step depends on, without data and without a device.

    device_type: "cuda" or "cpu": where the step is to be made.
    source:      of the config, if it was built already.
    """
    source = source or _build(config, "data")
    assert source is not None
    num_classes = _num_classes(config, source)
    return Subject(
        build_model=model_builder(config, source),
        # Counts of labels change no size, and may take long to read.
        loss=_build(config, "loss", class_counts=np.ones(num_classes, dtype=np.int64)),
        optimization=_build(config, "optim"),
        inputs=source.inputs,
        pattern=LayoutCache(pattern_of(config)).on_host,
        implementation=config.implementation,
        num_layers=config.model.num_layers,
        levers=build_levers(config),
        tokens=config.tokens,
        batch_size=config.crops.batch_size,
        accumulates=config.trainer.accumulate_grad_batches > 1,
        clips=config.trainer.gradient_clip_val is not None,
        averages=keeps_a_mean(plain(config)["callbacks"]),
        precision=str(config.trainer.precision or ("bf16-mixed" if device_type == "cuda" else "32-true")),
        device_type=device_type,
    )


def build_levers(config: DictConfig) -> Levers:
    """The levers of a config."""
    return _build(config, "memory")


def _build_trainer(
    config: DictConfig, precision: str, folder: RunFolder, metrics_file: JsonlLogger, fixed: list[Callback]
) -> L.Trainer:
    loggers: list[Logger] = [metrics_file, *_build_each(config, "logger", folder=folder.path, run_id=folder.run_id)]
    for watching in loggers:
        if isinstance(watching, WandbLogger):
            folder.run_id = str(watching.version)  # its own, where W&B steers the search
    monitors: list[Callback] = _build_each(config, "callbacks")
    plugins: list[Any] = [WholeCheckpoints()]
    if SLURMEnvironment.detect():
        # Else Lightning answers SIGUSR1 with a checkpoint of its own, from which it would go on for ever after.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    if weights_are_narrow(precision):
        plugins.append(NarrowModel(precision))  # pyright: ignore[reportArgumentType]
    return _build(
        config,
        "trainer",
        precision=None if weights_are_narrow(precision) else precision,
        logger=loggers,
        # Monitors log first, so that the summary sees the step's figures, and a checkpoint the summary.
        callbacks=[
            *monitors,
            LastValidation(),
            Resumption(),
            *fixed,
            Interruption(folder.last_checkpoint),
            LastCheckpoint(folder.last_checkpoint),
        ],
        plugins=plugins,
        default_root_dir=str(folder.path),
        max_epochs=-1,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _device(config: DictConfig) -> torch.device:
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", 0) if on_gpu else torch.device("cpu")


def _default_precision(config: DictConfig) -> str:
    return "bf16-mixed" if _device(config).type == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def _dtype(precision: str) -> torch.dtype:
    """The dtype in which attention will be asked for."""
    return torch.bfloat16 if precision.startswith("bf16") else torch.float16 if "16" in precision else torch.float32
