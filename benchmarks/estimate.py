"""How far `longtag.memory.estimate` is from the memory that training steps take on this GPU.

    python -m benchmarks.estimate

Three training steps of each config, of which the peak of the last two counts: 12 layers, d_model 768, d_ff 2048, 12
heads, 1000 labels, dropout 0.1, 8 random keys, AdamW, bfloat16 autocast, token ids. Writes docs/estimate.csv and prints
it as a table. Two ways need no GPU and write nothing: --predict-only leaves the measurement out, and --recorded
predicts what docs/training.csv has measured.
"""

import argparse
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import rows, training
from longtag.assembly import build_levers
from longtag.data.source import TokenIds
from longtag.loss import TokenLoss, mean
from longtag.memory.estimate import Subject
from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.composed import compose_config
from longtag.memory.estimate.count import Standing, count_standing
from longtag.memory.estimate.estimate import summed
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from longtag.model.layout_cache import Pattern
from longtag.optim import Optimization
from sparse_attention import patterns

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "estimate.csv"
GIB = 2**30
INPUTS = TokenIds(100)

RANDOM: Pattern = partial(patterns.random, keys_per_query=8)
BIGBIRD: Pattern = partial(patterns.bigbird, block_size=64)


@dataclass(frozen=True)
class Row:
    """peaks in GiB, as torch.cuda.max_memory_allocated says it; off: how far the prediction is, in per cent."""

    config: str
    tokens: int
    predicted: float
    measured: float
    off: float
    device: str


def subject(memory: str, tokens: int, *, pattern: Pattern = RANDOM, in_backward: bool = False) -> Subject:
    """memory: overrides of the config, such as memory=lean."""
    model = partial(
        TokenClassifier, inputs=INPUTS, num_classes=1000, num_heads=12, d_model=768, d_ff=2048, position="rotary"
    )
    return Subject(
        build_model=model,
        loss=TokenLoss(),
        optimization=Optimization(in_backward=in_backward),
        inputs=INPUTS,
        pattern=pattern,
        implementation="auto",
        num_layers=12,
        levers=build_levers(compose_config(ROOT / "conf", memory.split())),
        tokens=tokens,
        clips=not in_backward,
    )


def subjects() -> dict[str, Subject]:
    return {
        "fast": subject("memory=fast", 100_000),
        "residual=float32": subject("memory=fast memory.residual=float32", 100_000),
        "selective": subject("memory=fast memory.checkpoint=selective", 100_000),
        "balanced": subject("memory=balanced", 100_000),
        "balanced, bigbird": subject("memory=balanced", 100_000, pattern=BIGBIRD),
        "balanced, in_backward": subject("memory=balanced", 100_000, in_backward=True),
        "lean": subject("memory=lean", 100_000),
        "balanced, 1M": subject("memory=balanced", 1_000_000),
        "lean, 1M": subject("memory=lean", 1_000_000),
    }


def recorded() -> Iterator[Row]:
    """This project's rows of docs/training.csv."""
    for row in rows.read(ROOT / "docs" / "training.csv", training.Row):
        if (ROOT / "conf" / "memory" / f"{row.model}.yaml").exists():
            given = row.options.split()
            levers = [option for option in given if option.startswith("memory.")]
            options = dict(option.removeprefix("model.").split("=") for option in given if option not in levers)
            what = subject(" ".join([f"memory={row.model}", *levers]), row.tokens)
            build = partial(
                what.build_model,
                position=options.get("position", "none"),
                dropout=float(options.get("dropout", 0)),
            )
            what = replace(what, build_model=build, clips=False)
            yield _compared(f"{row.model} {row.options}".strip(), what, row.peak_gib)


def measure(what: Subject) -> int:
    """Bytes at the peak of a training step that is not the first."""
    device = torch.device("cuda")
    model = what.build_model(pattern=what.pattern, num_layers=what.num_layers, levers=what.levers).to(device)
    optimizer = what.optimization.configure(model, max_steps=10)["optimizer"]
    inputs = torch.randint(INPUTS.vocabulary_size, (1, what.tokens), device=device)
    labels = torch.randint(1000, (1, what.tokens), device=device)

    def closure() -> float:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=what.autocast_dtype, cache_enabled=False):
            cost = cost_of_tokens(model.head, what.loss, model.encode(inputs), labels, tile=what.levers.tile_tokens)
            loss = mean(cost, what.loss.weight(labels))
            del cost
        loss.backward()
        if what.clips:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return 0.0

    optimizer.step(closure)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimizer.step(closure)
    return torch.cuda.max_memory_allocated()


def row_of(name: str, what: Subject, *, predict_only: bool) -> Row:
    if predict_only:
        return _compared(name, what, float("nan"))
    # The model before may hold itself in a cycle.
    gc.collect()
    torch.cuda.empty_cache()
    return _compared(name, what, measure(what) / GIB)


def _compared(name: str, what: Subject, measured: float) -> Row:
    predicted = summed(what, count_composed(what, costs=False), _standing(what)).peak / GIB
    off = 100 * (predicted / measured - 1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return Row(name, what.tokens, round(predicted, 3), round(measured, 3), round(off, 1), device)


def _standing(what: Subject) -> Standing:
    # The length plays no part in it.
    return count_standing(replace(what, tokens=1024, pattern=RANDOM))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimate", description=__doc__)
    parser.add_argument("--predict-only", action="store_true", help="no GPU: predictions alone")
    parser.add_argument("--recorded", action="store_true", help="no GPU: predict what docs/training.csv has measured")
    options = parser.parse_args(arguments)
    without_gpu = options.predict_only or options.recorded
    print(f"torch {torch.__version__}, {'no GPU' if without_gpu else torch.cuda.get_device_name()}\n")
    print("| config | tokens | predicted, GiB | measured, GiB | off, % |\n|---|---|---|---|---|")
    measured = (row_of(name, what, predict_only=options.predict_only) for name, what in subjects().items())
    found = []
    for row in recorded() if options.recorded else measured:
        found.append(row)
        beside = "- | -" if options.predict_only else f"{row.measured:.2f} | {row.off:+.1f}"
        print(f"| {row.config} | {row.tokens:,} | {row.predicted:.2f} | {beside} |", flush=True)
    if not without_gpu:
        rows.replace_of_device(found, FILE)


if __name__ == "__main__":
    main()
