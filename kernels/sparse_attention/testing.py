"""What implementations are tested with: a float64 oracle, awkward inputs, and an error bound that nobody picks by hand.

Shapes: b batch, h heads, n queries, m keys, s slots, d head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .layouts import EMPTY, IndexList, Layout

Attention = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(q, k, v) -> (out, lse), as `sparse_attention(..., return_lse=True)` gives them."""


@dataclass(frozen=True)
class Inputs:
    """q (b, h, n, d); k, v (b, h, m, d); and the gradients that reach out (b, h, n, d) and lse (b, h, n)."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor
    grad_lse: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(tensor.to(dtype) for tensor in (self.q, self.k, self.v, self.grad_out, self.grad_lse)))

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, not copied, as leaves that require gradients."""
        q, k, v = (tensor.detach().requires_grad_() for tensor in (self.q, self.k, self.v))
        return q, k, v


@dataclass(frozen=True)
class Results:
    """Everything that an implementation returns, and the gradients of q, k and v."""

    out: Tensor
    lse: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor


def random_inputs(
    *,
    num_tokens: int,
    head_dim: int,
    heads: int = 2,
    batch: int = 1,
    num_keys: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Inputs:
    """Fresh standard normal tensors, drawn in float64 on the CPU so that all dtypes and devices see the same numbers.

    A quarter of the queries gets no gradient through lse and the rest does, so that both paths are met.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    queries = (batch, heads, num_tokens)
    keys = (batch, heads, num_tokens if num_keys is None else num_keys)
    inputs = Inputs(
        draw(*queries, head_dim),
        draw(*keys, head_dim),
        draw(*keys, head_dim),
        draw(*queries, head_dim),
        draw(*queries),
    )
    inputs.grad_lse[..., ::4] = 0
    return inputs


def as_fused_projection(inputs: Inputs) -> Inputs:
    """The same numbers with q, k and v as views into one (b, n, 3, h, d) projection: no stride is that of a copy."""
    if inputs.q.shape != inputs.k.shape:
        raise ValueError("a fused projection needs as many keys as queries")
    fused = torch.stack((inputs.q, inputs.k, inputs.v)).permute(1, 3, 0, 2, 4).contiguous()
    q, k, v = fused.permute(2, 0, 3, 1, 4)
    return replace(inputs, q=q, k=k, v=v)


def _drawn(num_tokens: int, num_slots: int, num_keys: int, generator: torch.Generator) -> Tensor:
    return torch.randint(num_keys, (num_tokens, num_slots), generator=generator)


def _scattered_empty_slots(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices.masked_fill(torch.rand(indices.shape, generator=generator) < 0.4, EMPTY)


def _empty_rows(indices: Tensor, generator: torch.Generator) -> Tensor:
    indices[::3] = EMPTY
    return indices


def _leading_empty_slots(indices: Tensor, generator: torch.Generator) -> Tensor:
    indices[:, : max(1, indices.shape[1] // 2)] = EMPTY
    indices[0] = 0
    return indices


def _duplicates(indices: Tensor, generator: torch.Generator) -> Tensor:
    indices[:, 1::2] = indices[:, :1]
    indices[0] = indices[0, 0]
    return indices


def _hub(indices: Tensor, generator: torch.Generator) -> Tensor:
    indices[:, -1] = 0
    return indices


def _unseen_keys(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices // 2


AWKWARD_TABLES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "drawn at random": lambda indices, generator: indices,
    "scattered empty slots": _scattered_empty_slots,
    "empty rows": _empty_rows,
    "leading empty slots": _leading_empty_slots,
    "duplicates": _duplicates,
    "a hub": _hub,
    "unseen keys": _unseen_keys,
    "nothing but empty slots": lambda indices, generator: torch.full_like(indices, EMPTY),
}


def awkward_layout(
    name: str,
    *,
    num_tokens: int,
    num_slots: int,
    num_keys: int | None = None,
    heads: int | None = None,
    full_rows: tuple[int, ...] = (),
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> IndexList:
    """The table of `AWKWARD_TABLES` called `name`; `heads` tables of it for a per-head pattern."""
    generator = torch.Generator().manual_seed(seed)
    num_keys = num_tokens if num_keys is None else num_keys
    tables = [
        AWKWARD_TABLES[name](_drawn(num_tokens, num_slots, num_keys, generator), generator) for _ in range(heads or 1)
    ]
    indices = tables[0] if heads is None else torch.stack(tables)
    indices[..., list(full_rows), :] = EMPTY
    return IndexList(indices.to(device), num_keys, full_rows)


def dense_oracle(q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float | None = None):
    """Dense attention with each pair weighted by how often the layout lists it: (out, lse), differentiable.

    Meant for float64 and small N: it holds (b, h, n, m).
    """
    count_nm = _count_pairs(layout).to(q.device, q.dtype)
    score = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    seen = count_nm > 0
    top = score.detach().masked_fill(~seen, -torch.inf).amax(dim=-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0)
    weight = count_nm * torch.where(seen, score - top, 0).exp()
    total = weight.sum(dim=-1, keepdim=True)
    some = total > 0
    out = weight / torch.where(some, total, 1) @ v
    lse = torch.where(some, top + torch.where(some, total, 1).log(), -torch.inf)
    return out, lse.squeeze(-1)


def _count_pairs(layout: Layout) -> Tensor:
    """(n, m) or (h, n, m): how often each query lists each key."""
    if not isinstance(layout, IndexList):
        return layout.dense_mask().long()
    valid = layout.indices >= 0
    count = torch.zeros(*layout.indices.shape[:-1], layout.num_keys, dtype=torch.int64, device=layout.device)
    count.scatter_add_(-1, layout.indices.clamp(min=0).long(), valid.long())
    count[..., list(layout.full_rows), :] = 1
    return count


def eager_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float | None = None):
    """What one would write in plain torch, all of it in the dtype of the inputs: (out, lse).

    K[index] for an index list, which holds (b, h, n, s, d), and a mask for other layouts, which holds (b, h, n, m).
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(layout, IndexList):
        return _eager_indexing(q, k, v, layout, factor)
    seen = layout.dense_mask().to(q.device)
    score = (q @ k.transpose(-2, -1) * factor).masked_fill(~seen, torch.finfo(q.dtype).min)
    empty = ~seen.any(dim=-1)
    out = (score.softmax(dim=-1) @ v).masked_fill(empty.unsqueeze(-1), 0)
    return out, score.logsumexp(dim=-1).masked_fill(empty, -torch.inf)


def _eager_indexing(q: Tensor, k: Tensor, v: Tensor, layout: IndexList, factor: float) -> tuple[Tensor, Tensor]:
    heads = q.shape[1]
    index_hns = layout.indices.long().expand(heads, -1, -1)
    head_h11 = torch.arange(heads, device=q.device)[:, None, None]
    gathered_k, gathered_v = k[:, head_h11, index_hns.clamp(min=0)], v[:, head_h11, index_hns.clamp(min=0)]
    score = (q.unsqueeze(-2) * gathered_k).sum(dim=-1) * factor
    # A finite mask keeps the softmax of an empty row, and its gradient, free of NaN; the row is blanked below.
    score = score.masked_fill(index_hns < 0, torch.finfo(q.dtype).min)
    empty = (index_hns < 0).all(dim=-1)
    out = (score.softmax(dim=-1).unsqueeze(-1) * gathered_v).sum(dim=-2).masked_fill(empty.unsqueeze(-1), 0)
    lse = score.logsumexp(dim=-1).masked_fill(empty, -torch.inf)
    if layout.full_rows:
        rows = layout.full_rows_index
        score = q[:, :, rows] @ k.transpose(-2, -1) * factor
        out = out.index_copy(2, rows, score.softmax(dim=-1) @ v)
        lse = lse.index_copy(2, rows, score.logsumexp(dim=-1))
    return out, lse


def run(attention: Attention, inputs: Inputs) -> Results:
    """Forward and backward of `attention` on leaves that keep the strides of the inputs."""
    leaves = inputs.leaves()
    out, lse = attention(*leaves)
    # lse may be float32 whatever the inputs are; -inf marks queries without keys, whose lse carries no gradient.
    grad_lse = inputs.grad_lse.to(lse.dtype).masked_fill(lse == -torch.inf, 0)
    gradients = torch.autograd.grad((out, lse), leaves, (inputs.grad_out.to(out.dtype), grad_lse))
    return Results(out.detach(), lse.detach(), *gradients)


def run_oracle(inputs: Inputs, layout: Layout, *, scale: float | None = None) -> Results:
    """The exact results for these inputs, in float64."""
    return run(lambda q, k, v: dense_oracle(q, k, v, layout, scale=scale), inputs.to(torch.float64))


def assert_as_exact_as_eager(
    results: Results, inputs: Inputs, layout: Layout, *, scale: float | None = None, factor: float = 2.0
) -> None:
    """Raise AssertionError unless each result is as near to float64 as eager torch in the same dtype, times `factor`.

    The measure is the largest error, taken in float64. Two things are granted on top: one rounding of the largest
    value, since eager torch may be exact by luck; and what adding up terms one after the other may lose, their number
    times half a rounding of the largest one, since terms may cancel (Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2). Infinities must stand in the same places.
    """
    exact = run_oracle(inputs, layout, scale=scale)
    eager = run(lambda q, k, v: eager_attention(q, k, v, layout, scale=scale), inputs)
    rounding = torch.finfo(inputs.q.dtype).eps
    summing = torch.finfo(torch.promote_types(inputs.q.dtype, torch.float32)).eps
    terms = max(layout.max_degree, int(_count_pairs(layout).sum(dim=-1).max()))
    for name, largest_term in _largest_terms(inputs, scale).items():
        want, ours, theirs = (getattr(results_of, name).double() for results_of in (exact, results, eager))
        finite = want.isfinite()
        assert torch.equal(ours.isfinite(), finite), f"{name}: finite where the oracle is not, or the reverse"
        assert torch.equal(ours[~finite], want[~finite]), f"{name}: infinities differ"
        want, ours, theirs = want[finite], ours[finite], theirs[finite]
        if want.numel() == 0:
            continue
        error, lost = (ours - want).abs().max(), (theirs - want).abs().max()
        allowed = factor * lost + rounding * want.abs().max() + terms / 2 * summing * largest_term
        assert error <= allowed, f"{name}: error {error:.3e}, allowed {allowed:.3e}; eager torch loses {lost:.3e}"


def _largest_terms(inputs: Inputs, scale: float | None) -> dict[str, float]:
    """How large a term of the sum can be that each result consists of, for weights of at most 1."""
    inputs = inputs.to(torch.float64)
    factor = inputs.q.shape[-1] ** -0.5 if scale is None else abs(scale)
    length = {name: float(getattr(inputs, name).norm(dim=-1).max()) for name in ("q", "k", "v", "grad_out")}
    d_score = factor * (2 * length["grad_out"] * length["v"] + float(inputs.grad_lse.abs().max()))
    return {
        "out": length["v"],
        "lse": factor * length["q"] * length["k"],
        "dq": d_score * length["k"],
        "dk": d_score * length["q"],
        "dv": length["grad_out"],
    }
