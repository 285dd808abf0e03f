"""A stack of blocks that share one layout."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from torch import Tensor, nn

from longtag.memory import Levers
from longtag.memory.checkpointing import run_checkpointed
from longtag.memory.tiles import by_tiles
from longtag.model.block import Block, Norm
from longtag.model.rotary import Rotation
from sparse_attention import Layout


class Encoder(nn.Module):
    """`num_layers` blocks, and a last norm where the blocks norm their inputs only.

    levers_of_blocks: those of each block, where they differ; `levers` are those of what is around the blocks.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        norm: Norm = "post",
        implementation: str = "auto",
        levers: Levers | None = None,
        levers_of_blocks: Sequence[Levers] | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.levers = levers or Levers()
        of_blocks = list(levers_of_blocks or [self.levers] * num_layers)
        self.blocks = nn.ModuleList(
            Block(
                d_model=d_model,
                num_heads=num_heads,
                d_ff=d_ff,
                dropout=dropout,
                norm=norm,
                implementation=implementation,
                levers=of_block,
                fused=fused,
            )
            for of_block in of_blocks
        )
        # Not found anew in each forward, since torch.compile cannot trace that.
        self._runs = list(_runs(of_blocks))
        self.final_norm = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(batch, N, d_model) -> (batch, N, d_model)."""
        blocks = list(self.blocks)
        for levers, first, stop in self._runs:
            if levers.checkpoint == "none":
                # One by one, so that nothing here holds what entered a block longer than the block does.
                for block in blocks[first:stop]:
                    x = block(x, layout, rotation)
            else:
                together = levers.blocks_recomputed_together
                x = run_checkpointed(blocks[first:stop], x, layout, rotation, every=together, offload=levers.offload)
        if self.levers.tile_tokens is None or isinstance(self.final_norm, nn.Identity):
            return self.final_norm(x)
        return by_tiles(self.final_norm, x.flatten(0, 1), tile=self.levers.tile_tokens, draws=False).view(x.shape)


def _runs(levers_of_blocks: Sequence[Levers]) -> Iterator[tuple[Levers, int, int]]:
    """Levers, and the first block and the one behind the last, of blocks in a row that have the same ones."""
    stop = 0
    for levers, alike in groupby(levers_of_blocks):
        first, stop = stop, stop + len(list(alike))
        yield levers, first, stop
