"""A whole training step of long sequences, presets of `memory` beside Hugging Face: `python -m benchmarks.training`.

12 layers, d_model 768, d_ff 2048, 12 heads, 1000 labels, 8 random keys a query, AdamW, bfloat16 autocast, batch 1; no
dropout and no clipping, for every model alike. A step is forward, loss, backward and optimizer, from token ids that are
on the GPU already. The median of the steps after the second counts, of fewer where steps take long; peak memory is what
tensors took in one of them.
Writes a CSV; rows of the same model, tokens, options and device are replaced. Peers need the extra `peers`.
"""

# transformers is the extra `peers`.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.rows import read, write
from longtag.data.source import TokenIds
from longtag.loss import TokenLoss
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from longtag.optim import Optimization

CONF = Path(__file__).parents[1] / "conf"
VOCABULARY = 100
NUM_CLASSES = 1000
SHAPE = ["model=question", "model.num_layers=12", "model.num_heads=12", "pattern=random", "data=synthetic"]
GIB = 2**30
PATIENCE_S = 20

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """What one model took. `options` are overrides of the config beyond the preset."""

    model: str
    options: str
    tokens: int
    step_ms: float
    tokens_per_second: float
    peak_gib: float
    reserved_gib: float
    first_step_s: float
    device: str


def ours(preset: str, options: Sequence[str], tokens: int, dropout: float) -> Step:
    """A step of this project's model with a preset of `memory`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "train", [*SHAPE, f"memory={preset}", f"tokens={tokens}", f"model.dropout={dropout}", *options]
        )
    model: TokenClassifier = instantiate(config.model, _convert_="all", _partial_=True)(
        inputs=TokenIds(VOCABULARY),
        num_classes=NUM_CLASSES,
        pattern=instantiate(config.pattern, _convert_="all"),
        implementation=config.implementation,
        levers=instantiate(config.memory),
    ).cuda()
    optimization: Optimization = instantiate(config.optim, _convert_="all")
    optimizer = optimization.configure(model, max_steps=1000)["optimizer"]
    loss = TokenLoss()

    def cost(ids: Tensor, labels: Tensor) -> Tensor:
        features = model.encode(ids)
        return cost_of_tokens(model.head, loss, features, labels, tile=model.levers.tile_tokens) / labels.numel()

    return _step(cost, optimizer, tokens)


def hugging_face(name: str, tokens: int) -> Step:
    """A step of BigBird (blocks of 64, 3 random) or Longformer (window 512), each block recomputed in backward."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 2048,
        "num_labels": NUM_CLASSES,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if name == "BigBird":
        config = transformers.BigBirdConfig(
            **common, max_position_embeddings=tokens, attention_type="block_sparse", block_size=64, num_random_blocks=3
        )
        model: nn.Module = transformers.BigBirdForTokenClassification(config)
    else:
        config = transformers.LongformerConfig(
            **common, max_position_embeddings=tokens + 2, attention_window=512, pad_token_id=1
        )
        model = transformers.LongformerForTokenClassification(config)
    model = model.cuda().train()
    model.gradient_checkpointing_enable()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def cost(ids: Tensor, labels: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss

    return _step(cost, optimizer, tokens)


def _step(cost: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer, tokens: int) -> Step:
    ids = torch.randint(5, VOCABULARY, (1, tokens), device="cuda")
    labels = torch.randint(NUM_CLASSES, (1, tokens), device="cuda")

    def step() -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            value = cost(ids, labels)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def measure(name: str, options: str, build: Callable[[], Step], tokens: int, repeats: int) -> Row:
    """Build a model, take its first steps, then as many as `repeats` says or as are begun within PATIENCE_S."""
    started = time.perf_counter()
    step = build()
    step().item()
    first = time.perf_counter() - started
    step().item()
    torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while len(times) < repeats and sum(times) < PATIENCE_S:
        torch.cuda.synchronize()
        started = time.perf_counter()
        step().item()
        times.append(time.perf_counter() - started)
    seconds = median(times)
    peak, reserved = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
    figures = (seconds * 1000, tokens / seconds, peak, reserved, first)
    return Row(name, options, tokens, *figures, torch.cuda.get_device_name())


def rows_of(arguments: argparse.Namespace) -> Iterator[Row]:
    jobs: list[tuple[str, str, Callable[[], Step], int]] = []
    for tokens in arguments.tokens:
        for preset in arguments.presets:
            options = arguments.options
            shown = " ".join([*options, *([f"dropout={arguments.dropout}"] if arguments.dropout else [])])
            jobs.append((preset, shown, lambda p=preset, o=options, n=tokens: ours(p, o, n, arguments.dropout), tokens))
    for tokens in arguments.lean_tokens:
        jobs.append(("lean", "", lambda n=tokens: ours("lean", [], n, 0.0), tokens))
    for tokens in arguments.peer_tokens:
        for peer in arguments.peers:
            jobs.append((f"Hugging Face {peer}", "", lambda p=peer, n=tokens: hugging_face(p, n), tokens))
    for name, options, build, tokens in jobs:
        try:
            yield measure(name, options, build, tokens, arguments.repeats)
        except torch.OutOfMemoryError:
            print(f"{name} {options}: out of memory at {tokens:,} tokens", flush=True)
        gc.collect()
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--presets", nargs="*", default=["fast", "balanced", "lean"], help="of conf/memory")
    parser.add_argument("--options", nargs="*", default=[], help="overrides, such as memory.offload=true")
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000])
    parser.add_argument("--lean-tokens", type=int, nargs="*", default=[], help="lengths for lean alone, plain")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--peers", nargs="*", default=["Longformer", "BigBird"])
    parser.add_argument("--peer-tokens", type=int, nargs="*", default=[16_384, 98_304])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for training.csv")
    options = parser.parse_args(arguments)

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    heads = ("", "options", "tokens", "step ms", "tokens/s", "peak GiB", "reserved GiB", "first step s")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    path = options.out / "training.csv"
    rows = {_key(row): row for row in read(path, Row)}
    for row in rows_of(options):
        rows[_key(row)] = row
        write(list(rows.values()), path)
        print(
            f"| {row.model} | {row.options} | {row.tokens:,} | {row.step_ms:,.1f} "
            f"| {row.tokens_per_second / 1e3:,.0f} k | {row.peak_gib:.2f} "
            f"| {row.reserved_gib:.2f} | {row.first_step_s:.1f} |",
            flush=True,
        )


def _key(row: Row) -> tuple[str, str, int, str]:
    return row.model, row.options, row.tokens, row.device


if __name__ == "__main__":
    main()
