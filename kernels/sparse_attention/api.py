"""`sparse_attention` and `sparse_self_attention`: check the inputs, choose an implementation, call it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .full_rows import overwrite_full_rows
from .layouts import IndexList, Layout, PerHead
from .support import IMPLEMENTATIONS, check_inputs, choose


@overload
def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Layout,
    *,
    scale: float | None = None,
    implementation: str = "auto",
    return_lse: Literal[False] = False,
) -> Tensor: ...


@overload
def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Layout,
    *,
    scale: float | None = None,
    implementation: str = "auto",
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Layout,
    *,
    scale: float | None = None,
    implementation: str = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale * q k^T) v, where each query sees only the keys that `pattern` lists for it.

    q:       (batch, heads, N, head_dim), float32, float16, bfloat16 or float64; any strides, views need no copy.
    k, v:    (batch, heads, M, head_dim), dtype and device as q.
    pattern: a layout of N queries and M keys on the same device: an IndexList, BlockSparse or Dense, one of those made
             of them, or what a function of `sparse_attention.patterns` returns; of its own per head if it has a heads
             dim. A content-based one chooses its keys from q and k first.
    scale:   factor on the scores; head_dim ** -0.5 where it is not given.
    implementation: "auto", or one of `sparse_attention.IMPLEMENTATIONS`; `explain` says what "auto" takes and why.
    return_lse: also return the log of the sum of exp(score) of each query, so that parts can be merged.

    Returns out (batch, heads, N, head_dim) in the dtype of q; with `return_lse` also lse (batch, heads, N), natural
    log. A query without keys gives out 0, lse -inf and gradients 0. Sums are taken, and lse is given, in float32, or
    float64 for float64 inputs. Gradients for q, k and v are exact, through lse too, and the same in every run; those of
    torch's own kernels for dense attention only after `torch.use_deterministic_algorithms(True)`. Under autocast q, k
    and v are cast to its dtype, as scaled_dot_product_attention does. Under torch.compile the kernels are one graph,
    once `pattern.build()` was called outside of it; the reference for sparse layouts, on a CPU, breaks the graph.

    Raises ValueError when inputs and pattern do not fit, or the implementation asked for cannot take them.
    """
    q, k, v = _as_autocast_does(q, k, v)
    if isinstance(pattern, PerHead):
        return _attend_by_groups(q, k, v, pattern, scale, implementation, return_lse)
    if isinstance(pattern, Layout) and pattern.depends_on_inputs and q.dim() == 4 and q.shape[0] > 1:
        return _attend_with_batch_as_heads(q, k, v, pattern, scale, implementation, return_lse)
    pattern = _resolve(pattern, q, k, v)
    chosen = choose(implementation, q, k, v, pattern, return_lse=return_lse)
    attend = IMPLEMENTATIONS[chosen].load[pattern.kind]()
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    with _without_autocast(q.device.type):
        out, lse = attend(q, k, v, pattern, factor)
        if isinstance(pattern, IndexList) and pattern.full_rows:
            out, lse = overwrite_full_rows(out, lse, q, k, v, pattern, factor, chosen)
    return (out, lse) if return_lse else out


def sparse_self_attention(
    qkv: Tensor, pattern: Layout, *, scale: float | None = None, implementation: str = "auto"
) -> Tensor:
    """`sparse_attention` of the three parts of one fused projection.

    qkv: (batch, N, 3, heads, head_dim), the output of a projection to q, k and v in this order, seen as five dims.

    Returns out (batch, heads, N, head_dim). Everything else is as in `sparse_attention`, to which this is equal; but an
    implementation that can fills one gradient for qkv, where autograd would join three of them by a copy.
    """
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(f"qkv: expected shape (batch, length, 3, heads, head_dim), got {tuple(qkv.shape)}")
    (qkv,) = _as_autocast_does(qkv)
    # unbind, because the backward of indexing would fill a whole gradient of qkv for each part.
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    if isinstance(pattern, Layout) and (isinstance(pattern, PerHead) or pattern.depends_on_inputs):
        return sparse_attention(q, k, v, pattern, scale=scale, implementation=implementation)
    load_fused = IMPLEMENTATIONS[choose(implementation, q, k, v, pattern)].load_fused.get(pattern.kind)
    if load_fused is None or (isinstance(pattern, IndexList) and pattern.full_rows):
        return sparse_attention(q, k, v, pattern, scale=scale, implementation=implementation)
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    with _without_autocast(qkv.device.type):
        return load_fused()(qkv, pattern, factor)[0]


def _resolve(pattern: Layout, q: Tensor, k: Tensor, v: Tensor) -> Layout:
    """The layout for these queries and keys; what is no layout is left to the check of the inputs."""
    if not isinstance(pattern, Layout) or not pattern.depends_on_inputs:
        return pattern
    check_inputs(q, k, v, pattern)
    return pattern.resolve(q, k)


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Entered and left at every call, which is worth a few microseconds where there is nothing to switch off."""
    enabled = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if enabled else nullcontext()


def _attend_by_groups(
    q: Tensor, k: Tensor, v: Tensor, pattern: PerHead, scale: float | None, implementation: str, return_lse: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Each group of heads by itself, on views of q, k and v."""
    choose(implementation, q, k, v, pattern, return_lse=return_lse)
    outs, lses = [], []
    for heads, layout in pattern.groups():
        parts = q[:, heads], k[:, heads], v[:, heads]
        if return_lse:
            out, lse = sparse_attention(*parts, layout, scale=scale, implementation=implementation, return_lse=True)
            lses.append(lse)
        else:
            out = sparse_attention(*parts, layout, scale=scale, implementation=implementation)
        outs.append(out)
    return (torch.cat(outs, dim=1), torch.cat(lses, dim=1)) if return_lse else torch.cat(outs, dim=1)


def _attend_with_batch_as_heads(
    q: Tensor, k: Tensor, v: Tensor, pattern: Layout, scale: float | None, implementation: str, return_lse: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Every sequence chooses keys of its own: a batch of them is one sequence with so many more heads."""
    check_inputs(q, k, v, pattern)
    batch_and_heads = q.shape[:2]
    q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
    out, lse = sparse_attention(q, k, v, pattern, scale=scale, implementation=implementation, return_lse=True)
    out, lse = out[0].unflatten(0, batch_and_heads), lse[0].unflatten(0, batch_and_heads)
    return (out, lse) if return_lse else out


def _as_autocast_does(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not all(isinstance(tensor, Tensor) for tensor in tensors):  # which the check of the inputs will say
        return tensors
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    casts = (tensor.is_floating_point() and tensor.dtype != torch.float64 for tensor in tensors)
    return tuple(tensor.to(dtype) if cast else tensor for tensor, cast in zip(tensors, casts, strict=True))
