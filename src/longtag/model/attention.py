"""Multi-head self-attention in which each token sees only the keys that a layout lists.

Legend: b batch, n tokens, h heads, d head_dim, m = h * d width of the model.
"""

from torch import Tensor, nn

from longtag.errors import UsageError
from longtag.model.rotary import Rotation, rotate_queries_and_keys
from sparse_attention import Layout, sparse_self_attention


class SparseSelfAttention(nn.Module):
    """One projection to q, k and v, the sparse operator, and an output projection.

    The projection's output reaches the operator as it is: q, k and v are views into it, without a copy.
    Raises UsageError when `num_heads` does not divide `d_model`.
    """

    def __init__(self, *, d_model: int, num_heads: int, implementation: str = "auto") -> None:
        super().__init__()
        self.head_dim = head_dim(d_model, num_heads)
        self.num_heads = num_heads
        self.implementation = implementation
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x_bnm: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(b, n, m) -> (b, n, m); with a rotation, q and k are turned by their positions first."""
        shape_bn3hd = (*x_bnm.shape[:2], 3, self.num_heads, self.head_dim)
        # From a matrix, a linear layer makes a matrix that is no view, as the rotation in place wants it.
        projected = self.qkv(x_bnm.flatten(0, 1))
        if rotation is not None:
            projected = rotate_queries_and_keys(projected, shape_bn3hd, rotation)
        out_bhnd = sparse_self_attention(projected.view(shape_bn3hd), layout, implementation=self.implementation)
        return self.output(out_bhnd.transpose(1, 2).flatten(2))


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
