"""What each lever of `memory` saves, and what it costs in matrix products, counted without a GPU and without data.

    python -m benchmarks.levers --tokens 100000 --layers 12 --norm post

One training step of batch 1, d_model 768, d_ff 2048, 12 heads, 1000 labels, in bfloat16 autocast, over tensors that
have shapes and no data: forward, loss, backward. Counted are the tensors alive, gradients included, without the weights
and the optimizer's states. Attention is dense and fused, whose graph keeps q, k, v, the output and the log-sum-exp;
kernels for index lists keep up to one float32 number for each head and listed key as well. Products are those of
matrices, attention left out.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.products import MatrixProducts
from longtag.data.source import Vectors
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from longtag.model.block import Norm
from sparse_attention import patterns

BLOCKS = partial(Levers, checkpoint="blocks")
TABLE = {
    "none": Levers(),
    "tile_heads=4": Levers(tile_heads=4),
    "tile_tokens=8192": Levers(tile_tokens=8192),
    "checkpoint=selective": Levers(checkpoint="selective"),
    "checkpoint=selective tile_tokens=8192": Levers(checkpoint="selective", tile_tokens=8192),
    "checkpoint=blocks": BLOCKS(),
    "checkpoint=blocks checkpoint_every=2": BLOCKS(checkpoint_every=2),
    "checkpoint=blocks residual=bfloat16": BLOCKS(residual="bfloat16"),
    "checkpoint=blocks offload=true": BLOCKS(offload=True),
    "checkpoint=blocks tile_tokens=8192": BLOCKS(tile_tokens=8192),
    "checkpoint=blocks tile_tokens=8192 tile_heads=4": BLOCKS(tile_tokens=8192, tile_heads=4),
    "all of these": BLOCKS(tile_tokens=8192, tile_heads=4, residual="bfloat16", offload=True),
}
GIB = 2**30


def step(levers: Levers, tokens: int, layers: int, norm: Norm) -> tuple[float, float, float]:
    """Bytes that forward leaves for backward, the peak of the step, and the multiplications in its matrix products."""
    with FakeTensorMode():
        model = TokenClassifier(
            inputs=Vectors(768), num_classes=1000, pattern=patterns.dense, num_layers=layers, num_heads=12,
            d_model=768, d_ff=2048, dropout=0.1, norm=norm, position="rotary", project_inputs=False, levers=levers,
        )  # fmt: skip
        inputs, labels = torch.randn(1, tokens, 768), torch.zeros(1, tokens, dtype=torch.int64)
        with MatrixProducts() as products, LiveBytes() as live, torch.autocast("cpu", dtype=torch.bfloat16):
            features = model.encode(inputs)
            cost = cost_of_tokens(model.head, TokenLoss(), features, labels, tile=levers.tile_tokens)
            del features
            kept = live.now
            cost.backward()
    return kept, live.peak, products.count


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--norm", choices=["post", "pre"], default="post")
    options = parser.parse_args(arguments)
    shape = options.tokens, options.layers, options.norm
    print(f"torch {torch.__version__}; {options.tokens:,} tokens, {options.layers} layers, norm={options.norm}")
    print("| levers | kept for backward, GiB | peak, GiB | matrix products |\n|---|---|---|---|")
    products_of_none = 0.0
    for name, levers in TABLE.items():
        kept, peak, products = step(levers, *shape)
        products_of_none = products_of_none or products
        print(f"| {name} | {kept / GIB:.2f} | {peak / GIB:.2f} | {products / products_of_none:.2f} |", flush=True)


if __name__ == "__main__":
    main()
