"""torch.compile for the blocks of a model, as another way to the fused kernels."""

from collections.abc import Iterable
from typing import cast

import torch

from longtag.model import TokenClassifier
from longtag.model.block import Block


def compile_blocks(model: TokenClassifier) -> None:
    """Let torch.compile fuse each block at its first call, in place of `longtag.fused`.

    Of blocks that recompute rows, or attention by groups of heads, only what follows attention is compiled: torch
    traces neither loops with a backward of their own nor hooks on what is saved for it.
    """
    # Lists that backward derives from a layout must be there before: a graph is not traced anew when they appear.
    model.layouts.builds = True
    for block in cast(Iterable[Block], model.encoder.blocks):
        block.fused = False
        if block.levers.recomputes_rows or block.levers.tile_heads is not None:
            block._behind_attention = torch.compile(block._behind_attention)
        else:
            block.compile()
