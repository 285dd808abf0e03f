"""Multi-head self-attention in which each token sees only the keys that a layout lists.

Legend: b batch, n tokens, h heads, d head_dim, m = h * d width of the model.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from longtag.errors import UsageError
from longtag.fused import project_beside
from longtag.memory import Levers
from longtag.memory.offload import kept, previous_comes_behind
from longtag.memory.selective import made_again
from longtag.memory.tiles import by_tiles
from longtag.model.grouped_attention import Groups, Projections, attention_by_groups
from longtag.model.rotary import Rotation, rotate_queries_and_keys
from sparse_attention import Layout, sparse_self_attention

Rows = Callable[[Tensor], Tensor]
"""A function that treats each row, (b * n, m), by itself."""


class SparseSelfAttention(nn.Module):
    """One projection to q, k and v, the sparse operator, and an output projection.

    The projection's output reaches the operator as it is: q, k and v are views into it, without a copy.
    Raises UsageError when `num_heads` does not divide `d_model`.
    """

    def __init__(
        self, *, d_model: int, num_heads: int, implementation: str = "auto", levers: Levers | None = None
    ) -> None:
        super().__init__()
        self.head_dim = head_dim(d_model, num_heads)
        self.num_heads = num_heads
        self.implementation = implementation
        self.levers = levers or Levers()
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x_bnm: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(b, n, m) -> (b, n, m); with a rotation, q and k are turned by their positions first."""
        return self.finish(self.attend(x_bnm, layout, rotation)[0])

    def attend(
        self,
        x_bnm: Tensor,
        layout: Layout,
        rotation: Rotation | None = None,
        norm: nn.LayerNorm | None = None,
        *,
        beside: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """What `finish`, which is local to a token, makes the result of, (b, n, m); and x for whoever else reads it.

        norm:   what x goes through first.
        beside: whether both gradients of x meet inside of a product, for x without a norm. Where heads go through in
                groups they do so in any case.
        """
        if self.levers.tile_heads is not None:
            return self._attend_by_groups(x_bnm, layout, rotation, norm, self.levers.tile_heads)
        if not beside:
            return self._attend(x_bnm, layout, rotation, self._behind(norm)), x_bnm
        same = x_bnm

        def project(rows: Tensor) -> Tensor:
            nonlocal same
            projected, same = project_beside(rows, self.qkv)
            return projected

        attended = self._attend(x_bnm, layout, rotation, project)
        return attended, same.view(x_bnm.shape)

    def finish(self, attended: Tensor) -> Tensor:
        """(..., m) -> (..., m): the output projection, unless each group of heads had its share of it already."""
        return attended if self.levers.tile_heads is not None else self.output(attended)

    def _attend(self, x_bnm: Tensor, layout: Layout, rotation: Rotation | None, project: Rows) -> Tensor:
        """The heads side by side, (b, n, m); `project` maps (b * n, m) to (b * n, 3 * m)."""
        shape_bn3hd = (*x_bnm.shape[:2], 3, self.num_heads, self.head_dim)

        def make_qkv(x_bnm: Tensor) -> Tensor:
            # From a matrix, a linear layer makes a matrix that is no view, as the rotation in place wants it.
            projected = project(x_bnm.flatten(0, 1))
            if rotation is None:
                return projected
            # The operator makes the gradient anew, and nobody else reads it.
            return rotate_queries_and_keys(projected, shape_bn3hd, rotation, owns_gradient=True)

        projected = make_qkv(x_bnm)
        x_again = kept(x_bnm) if self.levers.selective else None
        with made_again(projected, lambda: make_qkv(x_again())) if x_again else nullcontext():
            out_bhnd = sparse_self_attention(projected.view(shape_bn3hd), layout, implementation=self.implementation)
        return out_bhnd.transpose(1, 2).flatten(2)

    def _behind(self, norm: nn.LayerNorm | None) -> Rows:
        """The projection of normed rows. They are kept for backward, or what autocast makes of them, unless a lever
        acts.
        """

        def norm_and_project(rows: Tensor) -> Tensor:
            return self.qkv(rows if norm is None else norm(rows))

        def recompute(rows: Tensor) -> Tensor:
            if norm is None and not _is_cast(rows):
                return self.qkv(rows)
            return by_tiles(norm_and_project, rows, tile=self.levers.tile_tokens, draws=False)

        return recompute if self.levers.recomputes_rows else norm_and_project

    def _attend_by_groups(
        self, x_bnm: Tensor, layout: Layout, rotation: Rotation | None, norm: nn.LayerNorm | None, group: int
    ) -> tuple[Tensor, Tensor]:
        """The output projection of each group's heads, summed, and x for whoever else reads it."""
        groups = Groups(
            layout=layout,
            group=group,
            num_heads=self.num_heads,
            attend=partial(sparse_self_attention, implementation=self.implementation),
            rotation=rotation,
            norm=norm,
            tile=self.levers.tile_tokens,
        )
        projections = Projections(self.qkv.weight, self.qkv.bias, self.output.weight, self.output.bias)
        attended, same = attention_by_groups(x_bnm, projections, groups)
        # Behind this lie the tiles of everything else, where memory is at its highest.
        previous_comes_behind(attended)
        return attended, same


def _is_cast(x: Tensor) -> bool:
    """Whether a matrix product reads a copy of x in another dtype."""
    device = x.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != x.dtype


def head_dim(d_model: int, num_heads: int) -> int:
    """Width of one head. Raises UsageError when the heads do not divide the model's width."""
    if 1 <= num_heads <= d_model and d_model % num_heads == 0:
        return d_model // num_heads
    divisors = [heads for heads in range(1, d_model + 1) if d_model % heads == 0]
    below = [heads for heads in divisors if heads < num_heads][-1:]
    above = [heads for heads in divisors if heads > num_heads][:1]
    raise UsageError(
        f"num_heads={num_heads} does not divide d_model={d_model} into heads of equal width; "
        f"nearest that does: num_heads={' or '.join(map(str, below + above))}"
    )
