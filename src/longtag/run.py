"""The story of a run: check the config, build the parts, fit, test, say what came out."""

import logging
import warnings
from pathlib import Path

import lightning as L
import torch
from hydra.conf import HydraConf
from lightning.pytorch.callbacks import WeightAveraging
from omegaconf import DictConfig

from longtag.announcement import announce, show_results
from longtag.assembly import Parts, assemble
from longtag.callbacks.interruption import Interrupted
from longtag.checkpoint_file import read, step_to_resume
from longtag.config import check, plain
from longtag.errors import OutOfMemory
from longtag.folder import RunFolder
from longtag.loggers.wandb import finish
from longtag.loggers.wandb_file import rewind_offline
from longtag.memory.out_of_memory import describe
from longtag.precision import float32_products


def run(config: DictConfig, hydra_config: HydraConf, folder: RunFolder) -> float | None:
    """Train, validate and test what a config describes.

    Args:
        config: the composed config.
        hydra_config: Hydra's own node: what was chosen and overridden.
        folder: where the run lies, or goes on if it has a checkpoint.

    Returns:
        The best value of ``config.monitor``, for sweeps that optimise it; None if no validation was run.

    Raises:
        UsageError: an option or an input that cannot be used; the folder is left as it was.
        OutOfMemory: the device had too little memory, with what would fit.
        SystemExit: the run was interrupted, after its last checkpoint was saved.
    """
    _quieten_lightning()
    check(config, hydra_config.runtime.choices)
    L.seed_everything(config.seed, verbose=False)
    parts = assemble(config, hydra_config, folder)
    resumed = folder.checkpoint_to_resume(config.resume)
    averages = any(isinstance(callback, WeightAveraging) for callback in parts.trainer.callbacks)  # pyright: ignore
    step = 0 if resumed is None else step_to_resume(resumed, parts.tagger.state_dict(), averages=averages)
    if parts.trainer.is_global_zero:
        folder.claim(config, hydra_config)
        parts.metrics_file.rewind(step)
        rewind_offline(folder.path, folder.run_id, step)
        announce(parts.facts | ({"goes on from": str(resumed)} if resumed else {}))
    for logger in parts.trainer.loggers:
        logger.log_hyperparams(plain(config) | {"facts": parts.summary.facts})
    try:
        with float32_products(config.matmul_precision, parts.trainer.strategy.root_device):
            _fit_and_test(parts, resumed, test=config.test)
        if config.report and parts.trainer.is_global_zero:
            _report(folder, parts.trainer, parts.summary.steps)
    except torch.OutOfMemoryError as error:
        device = parts.trainer.strategy.root_device
        raise OutOfMemory(describe(error, config, parts.tagger.model, device, folder.last_checkpoint)) from error
    except Interrupted as stop:
        print(stop, flush=True)
        finish()  # before a queue is told to start the job again
        stop.leave()
    finally:
        finish()
    if parts.trainer.is_global_zero:
        show_results(parts.summary.last, parts.summary.best, str(folder.path))
    return parts.summary.best.get(config.monitor)


def _fit_and_test(parts: Parts, resumed: Path | None, *, test: bool) -> None:
    """Run the trainer, and write in summary.json how it ended."""
    status, failure = "failed", None
    try:
        parts.trainer.fit(parts.tagger, parts.crops, ckpt_path=resumed)
        if test:
            _load_weights(parts.tagger, parts.best.best_model_path)
            parts.trainer.test(parts.tagger, parts.crops, verbose=False)
        status = "completed"
    except Interrupted:
        status = "interrupted"
        raise
    except SystemExit as stop:  # Lightning's own answer to Ctrl-C outside of training
        status = "interrupted"
        raise KeyboardInterrupt from stop
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        parts.summary.write(parts.trainer, status, failure)


def _report(folder: RunFolder, trainer: L.Trainer, steps: int) -> None:
    from longtag.report.end_of_run import report_run  # matplotlib is not needed before

    report_run(folder.path, trainer.loggers, steps)


def _load_weights(tagger: L.LightningModule, path: str) -> None:
    # Not by the trainer, which would set its callbacks back to the checkpoint as well.
    if path:
        way_out = "the run is trained but not tested; give test=false, or resume=never to start afresh"
        tagger.load_state_dict(read(Path(path), way_out)["state_dict"])


def _quieten_lightning() -> None:
    """Silence what the start-up block says already, and advice that does not hold for crops that never run out."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*treespec, LeafSpec.*",
        ".*`srun` command is available.*",  # one process needs no srun, and several are started without it
        ".*sync_dist=True.*",  # the metrics have summed over the devices already
    ):
        warnings.filterwarnings("ignore", message)
