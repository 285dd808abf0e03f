"""Which implementations there are, what each of them can do, and which one `auto` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import sdpa, triton
from .layouts import HubsApart, InParts, Layout, PerHead

Attend = Callable[[Tensor, Tensor, Tensor, Any, float], tuple[Tensor, Tensor]]
"""(q, k, v, layout, scale) -> (out, lse); queries in the `full_rows` of an index list come out as empty rows."""

AttendFused = Callable[[Tensor, Any, float], tuple[Tensor, Tensor]]
"""The same of qkv (batch, N, 3, heads, head_dim), for which it gives one gradient."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Implementation:
    """summary:    what it is, for people who ask why it was taken.
    load:       by kind of layout, what imports it; called only when it is used, since what it imports may be missing.
    why_not:    (q, k, v, layout) -> why it cannot take these inputs, or None; asked for layouts of its kinds alone.
    load_fused: by kind of layout, what imports its entry for one fused projection, where it has one.
    gives_lse:  whether it can return lse.
    """

    summary: str
    load: Mapping[str, Callable[[], Attend]]
    why_not: Callable[[Tensor, Tensor, Tensor, Any], str | None] = lambda q, k, v, layout: None
    load_fused: Mapping[str, Callable[[], AttendFused]] = field(default_factory=dict)
    gives_lse: bool = True

    def refusal(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, return_lse: bool = False) -> str | None:
        """Why it cannot take these inputs, or None when it can."""
        if isinstance(layout, PerHead):
            reasons = (
                (heads, self.refusal(q[:, heads], k[:, heads], v[:, heads], part, return_lse))
                for heads, part in layout.groups()
            )
            return next((f"{_words(heads)}: {reason}" for heads, reason in reasons if reason is not None), None)
        if layout.kind not in self.load:
            return f"it takes {' and '.join(self.load)} layouts, and the pattern is {layout.kind}"
        if return_lse and not self.gives_lse:
            return "it does not return the log-sum-exp"
        return self.why_not(q, k, v, layout)


def _load_triton_index_list() -> Attend:
    from .ops import index_list_attention

    return index_list_attention


def _load_fused_triton_index_list() -> AttendFused:
    from .ops import fused_index_list_attention

    return fused_index_list_attention


def _load_triton_block_sparse() -> Attend:
    from .ops import block_sparse_attention

    return block_sparse_attention


def _load_fused_triton_block_sparse() -> AttendFused:
    from .ops import fused_block_sparse_attention

    return fused_block_sparse_attention


def _load_triton_hubs_apart() -> Attend:
    from .ops import hubs_apart_attention

    return hubs_apart_attention


def _load_fused_triton_hubs_apart() -> AttendFused:
    from .ops import fused_hubs_apart_attention

    return fused_hubs_apart_attention


def _load_triton_in_parts() -> Attend:
    from .ops import in_parts_attention

    return in_parts_attention


def _load_fused_triton_in_parts() -> AttendFused:
    from .ops import fused_in_parts_attention

    return fused_in_parts_attention


def _load_sdpa() -> Attend:
    return sdpa.attend


def _load_chunked() -> Attend:
    from .chunked import attend

    return attend


def _load_reference_index_list() -> Attend:
    from .reference.index_list import attend

    return attend


def _load_reference_block_sparse() -> Attend:
    from .reference.block_sparse import attend

    return attend


def _load_reference_hubs_apart() -> Attend:
    from .reference.hubs_apart import attend

    return attend


def _load_reference_in_parts() -> Attend:
    from .reference.in_parts import attend

    return attend


def _load_reference_dense() -> Attend:
    from .reference.dense import attend

    return attend


# In the order in which `auto` prefers them; the last one takes everything.
IMPLEMENTATIONS: dict[str, Implementation] = {
    "triton": Implementation(
        summary="fused Triton kernels, nothing of size (N, n, d) in memory",
        load={
            "index list": _load_triton_index_list,
            "block sparse": _load_triton_block_sparse,
            HubsApart.kind: _load_triton_hubs_apart,
            InParts.kind: _load_triton_in_parts,
        },
        why_not=triton.why_not,
        load_fused={
            "index list": _load_fused_triton_index_list,
            "block sparse": _load_fused_triton_block_sparse,
            HubsApart.kind: _load_fused_triton_hubs_apart,
            InParts.kind: _load_fused_triton_in_parts,
        },
    ),
    "sdpa": Implementation(
        summary="torch's fused dense attention",
        load={"dense": _load_sdpa},
        why_not=sdpa.why_not,
        gives_lse=False,
    ),
    "chunked": Implementation(
        summary="exact dense attention in chunks, after Rabe and Staats (2021)",
        load={"dense": _load_chunked},
    ),
    "reference": Implementation(
        summary="plain torch, on any device",
        load={
            "index list": _load_reference_index_list,
            "block sparse": _load_reference_block_sparse,
            HubsApart.kind: _load_reference_hubs_apart,
            InParts.kind: _load_reference_in_parts,
            "dense": _load_reference_dense,
        },
    ),
}


def why_not(
    implementation: str, q: Tensor, k: Tensor, v: Tensor, pattern: Layout, *, return_lse: bool = False
) -> str | None:
    """Why `implementation` cannot take these inputs, or None when it can.

    Raises ValueError for inputs that no implementation can take, and for an unknown name.
    """
    check_inputs(q, k, v, pattern)
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(("auto", *IMPLEMENTATIONS))
        raise ValueError(f"implementation={implementation!r}: expected one of {names}")
    return IMPLEMENTATIONS[implementation].refusal(q, k, v, pattern, return_lse)


def choose(implementation: str, q: Tensor, k: Tensor, v: Tensor, pattern: Layout, *, return_lse: bool = False) -> str:
    """The name of the implementation to use: the one asked for, or for "auto" the first that takes the inputs.

    For a layout of groups of heads, the names of all that its groups take, with " and " between them.

    Raises ValueError with the reason when the one asked for, or any at all, cannot take them.
    """
    if implementation == "auto":
        check_inputs(q, k, v, pattern)
        if isinstance(pattern, PerHead):
            names = (
                choose("auto", q[:, heads], k[:, heads], v[:, heads], part, return_lse=return_lse)
                for heads, part in pattern.groups()
            )
            return " and ".join(dict.fromkeys(names))
        for name, entry in IMPLEMENTATIONS.items():
            if entry.refusal(q, k, v, pattern, return_lse) is None:
                return name
        known = ", ".join(dict.fromkeys(kind for entry in IMPLEMENTATIONS.values() for kind in entry.load))
        raise ValueError(f"pattern: nothing here takes a layout of kind {pattern.kind!r}; there are {known}")
    reason = why_not(implementation, q, k, v, pattern, return_lse=return_lse)
    if reason is not None:
        raise ValueError(f"implementation={implementation!r}: {reason}; 'auto' takes one that fits")
    return implementation


def explain(q: Tensor, k: Tensor, v: Tensor, pattern: Layout, *, return_lse: bool = False) -> str:
    """Which implementation "auto" takes for these inputs and why it passes over those before it, in one line."""
    if isinstance(pattern, PerHead):
        check_inputs(q, k, v, pattern)
        return "; ".join(
            f"{_words(heads)}: {explain(q[:, heads], k[:, heads], v[:, heads], part, return_lse=return_lse)}"
            for heads, part in pattern.groups()
        )
    chosen = choose("auto", q, k, v, pattern, return_lse=return_lse)
    passed = []
    for name, entry in IMPLEMENTATIONS.items():
        if name == chosen:
            break
        # What is for other layouts altogether is no news.
        if pattern.kind in entry.load:
            passed.append(f"; not {name}: {entry.refusal(q, k, v, pattern, return_lse)}")
    return f"{chosen} ({IMPLEMENTATIONS[chosen].summary})" + "".join(passed)


def check_inputs(q: Tensor, k: Tensor, v: Tensor, pattern: Layout) -> None:
    """Raise ValueError unless q, k, v and the pattern fit one another."""
    if not isinstance(pattern, Layout):
        raise ValueError(f"pattern: expected a layout, such as an IndexList, got {type(pattern).__name__}")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if tensor.dim() != 4 or tensor.shape[-1] == 0:
            raise ValueError(f"{name}: expected shape (batch, heads, length, head_dim), got {tuple(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            allowed = ", ".join(map(_short, DTYPES))
            raise ValueError(f"{name}: dtype {_short(tensor.dtype)} is not supported; expected one of {allowed}")
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name}: expected the dtype of q, {_short(q.dtype)}, got {_short(tensor.dtype)}")
        if tensor.device != q.device:
            raise ValueError(f"{name}: expected the device of q, {q.device}, got {tensor.device}")
    batch, heads, _, head_dim = q.shape
    _check_length("q", q, "queries", pattern.num_tokens)
    _check_length("k", k, "keys", pattern.num_keys)
    if k.shape != (batch, heads, pattern.num_keys, head_dim):
        raise ValueError(
            f"k: expected batch, heads and head_dim of q, {(batch, heads, head_dim)}, got {_but_length(k)}"
        )
    if v.shape != k.shape:
        raise ValueError(f"v: expected the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    if pattern.num_heads not in (None, heads):
        raise ValueError(f"pattern: it has lists for {pattern.num_heads} heads, q has {heads}")
    if pattern.device not in (None, q.device):
        raise ValueError(f"pattern: it is on {pattern.device}, q on {q.device}; move it once with pattern.to(...)")


def _check_length(name: str, tensor: Tensor, things: str, expected: int) -> None:
    if tensor.shape[2] != expected:
        raise ValueError(f"{name}: length {tensor.shape[2]}, but the pattern is for {expected} {things}")


def _words(heads: slice) -> str:
    return f"heads {heads.start} to {heads.stop - 1}" if heads.stop - heads.start > 1 else f"head {heads.start}"


def _but_length(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.shape[0], tensor.shape[1], tensor.shape[3]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
