"""A stack of blocks that share one layout."""

from torch import Tensor, nn

from longtag.memory.checkpointing import run_checkpointed
from longtag.model.block import Block, Norm
from longtag.model.rotary import Rotation
from sparse_attention import Layout


class Encoder(nn.Module):
    """`num_layers` blocks, and a last norm where the blocks norm their inputs only.

    `checkpoint_every` blocks at a time are recomputed in backward instead of kept; 0 keeps everything.
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
        checkpoint_every: int = 0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                d_model=d_model,
                num_heads=num_heads,
                d_ff=d_ff,
                dropout=dropout,
                norm=norm,
                implementation=implementation,
            )
            for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()
        self.checkpoint_every = checkpoint_every

    def forward(self, x: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(batch, N, d_model) -> (batch, N, d_model)."""
        return self.final_norm(run_checkpointed(self.blocks, x, layout, rotation, every=self.checkpoint_every))
