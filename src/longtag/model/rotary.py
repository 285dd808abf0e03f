"""Rotary position embedding (Su et al., 2021): q and k are turned by their position, so scores see distances.

It happens in place, in the output of the fused projection: a rotated copy of q and k would cost two tensors of the
model's width in every layer, and v, a view, would keep the unrotated ones alive as well.

Legend: b batch, n tokens, h heads, d head_dim; the 3 are q, k and v.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longtag.fused.support import why_not
from longtag.model.position import waves

CHUNK_ELEMENTS = 2**24
"""Features turned at a time: bounds the float32 temporaries at 128 MiB, however long the sequence is."""


class Rotation(NamedTuple):
    """What turns (x1, x2) into (x1 cos - x2 sin, x2 cos + x1 sin): both tables (n, 1, 1, d) in float32.

    cos: cosines, twice.
    sin: negative sines, then sines, to be multiplied by (x2, x1).
    """

    cos: Tensor
    sin: Tensor


def rotation(num_tokens: int, head_dim: int, device: torch.device) -> Rotation:
    """The rotation of positions 0 .. n - 1. Feature i is paired with feature i + d / 2."""
    cos, sin = waves(num_tokens, head_dim // 2, device)
    return Rotation(torch.cat((cos, cos), -1)[:, None, None], torch.cat((-sin, sin), -1)[:, None, None])


def rotate(qkv_bn3hd: Tensor, turn: Rotation, *, back: bool = False) -> None:
    """Turn q and k of a contiguous (b, n, 3, h, d) in place, unseen by autograd. back: the other way."""
    _rotate(qkv_bn3hd, turn.cos, turn.sin, back=back)


def rotate_queries_and_keys(
    projected: Tensor, shape_bn3hd: tuple[int, ...], turn: Rotation, *, owns_gradient: bool = False
) -> Tensor:
    """Turn q and k inside `projected`, which is changed in place and returned; v stays as it is.

    projected:     (b * n, 3 * h * d), not a view: for a view that is changed in place, autograd copies whole gradients.
    owns_gradient: whether nobody but the rotation reads the gradient that reaches it. It is then turned in place too,
                   where it would be copied first.
    """
    return _RotateInPlace.apply(  # pyright: ignore[reportReturnType]
        projected, shape_bn3hd, turn.cos, turn.sin, owns_gradient
    )


class _RotateInPlace(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, shape_bn3hd: tuple[int, ...], cos: Tensor, sin: Tensor, owns_gradient: bool
    ) -> Tensor:
        _rotate(projected.view(shape_bn3hd), cos, sin, back=False)
        ctx.mark_dirty(projected)
        ctx.save_for_backward(cos, sin)
        ctx.shape_bn3hd, ctx.owns_gradient = shape_bn3hd, owns_gradient
        return projected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        if not (ctx.owns_gradient and grad.is_contiguous()):
            # It may be shared with other nodes of the graph.
            grad = grad.clone(memory_format=torch.contiguous_format)
        _rotate(grad.view(ctx.shape_bn3hd), cos, sin, back=True)
        return grad, None, None, None, None


def _rotate(projected_bn3hd: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> None:
    """back: turn the other way."""
    if why_not(projected_bn3hd) is None:
        from longtag.fused.rotate import rotate_  # imports triton

        rotate_(projected_bn3hd, cos, sin, back=back)
        return
    sin = -sin if back else sin
    qk_bn2hd = projected_bn3hd[:, :, :2]
    step = max(1, CHUNK_ELEMENTS // (qk_bn2hd.numel() // qk_bn2hd.shape[1]))
    for part, part_cos, part_sin in zip(qk_bn2hd.split(step, 1), cos.split(step), sin.split(step), strict=True):
        swapped = part.roll(part.shape[-1] // 2, -1)
        part.copy_((part * part_cos).addcmul_(swapped, part_sin))
