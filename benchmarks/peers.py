"""Attention over listed keys as people write it today, each a function of q, k, v (1, h, n, d) and indices (n, s).

Dense flash attention is among them as what one does without a sparse operator; it sees all keys, so its result differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from sparse_attention import IndexList, sparse_attention, sparse_self_attention

Attention = Callable[[Tensor, Tensor, Tensor, IndexList], Tensor]


@dataclass(frozen=True)
class Peer:
    """most_pairs: the largest tokens * slots * heads * head_dim that it is asked for; beyond, it waits or runs out.
    on_device:  also time it as a CUDA graph, without the host.
    """

    attend: Callable[..., Tensor]
    most_pairs: float = float("inf")
    same_result: bool = True
    fused: bool = False
    on_device: bool = False


def ours(q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    return sparse_attention(q, k, v, layout)


def ours_fused(qkv: Tensor, layout: IndexList) -> Tensor:
    """q, k and v in one tensor (1, n, 3, h, d), as a projection leaves them, and one gradient for it."""
    return sparse_self_attention(qkv, layout)


def eager_indexing(q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    index = layout.indices.long()
    score = torch.einsum("bhqd,bhqnd->bhqn", q, k[:, :, index]) * q.shape[-1] ** -0.5
    return torch.einsum("bhqn,bhqnd->bhqd", score.softmax(dim=-1), v[:, :, index])


def embedding_rows(q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    """Token by token, so that one look-up fetches all heads; embedding has the fastest backward of torch's gathers."""
    index, (_, heads, num_keys, head_dim) = layout.indices.long(), k.shape

    def gather(x: Tensor) -> Tensor:
        return embedding(index, x[0].transpose(0, 1).reshape(num_keys, -1)).view(*index.shape, heads, head_dim)

    score = torch.einsum("bhqd,qnhd->bhqn", q, gather(k)) * head_dim**-0.5
    return torch.einsum("bhqn,qnhd->bhqd", score.softmax(dim=-1), gather(v))


def graph_network(q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    """PyTorch Geometric: softmax and scatter over edges."""
    from torch_geometric.utils import scatter, softmax  # pyright: ignore[reportMissingImports]

    num_queries, num_slots = layout.indices.shape
    source = layout.indices.flatten().long()
    target = torch.arange(num_queries, device=q.device).repeat_interleave(num_slots)
    queries, keys, values = (x[0].transpose(0, 1) for x in (q, k, v))
    score = (queries[target] * keys[source]).sum(dim=-1) * q.shape[-1] ** -0.5
    weight = softmax(score, target, num_nodes=num_queries)
    out = scatter(values[source] * weight.unsqueeze(-1), target, dim=0, dim_size=num_queries, reduce="sum")
    return out.transpose(0, 1).unsqueeze(0)


def dense_flash(q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    return scaled_dot_product_attention(q, k, v)


@cache
def _compiled(attend: Attention, shape: tuple[int, ...]) -> Attention:
    """Anew for each shape: code for shapes that vary may be slower, and after some of them torch stops compiling."""
    torch.compiler.reset()
    return torch.compile(attend, dynamic=False)


def compiled(attend: Attention, q: Tensor, k: Tensor, v: Tensor, layout: IndexList) -> Tensor:
    return _compiled(attend, (*q.shape, *layout.indices.shape))(q, k, v, layout)


PEERS: dict[str, Peer] = {
    "sparse_attention": Peer(ours, on_device=True),
    "sparse_attention, fused projection": Peer(ours_fused, fused=True, on_device=True),
    "eager K[index]": Peer(eager_indexing, most_pairs=2.5e9),
    "compiled K[index]": Peer(partial(compiled, eager_indexing), most_pairs=2.5e9),
    "compiled embedding": Peer(partial(compiled, embedding_rows), most_pairs=2.5e9),
    "dense flash (SDPA)": Peer(dense_flash, most_pairs=1e9, same_result=False),
}
if find_spec("torch_geometric"):
    PEERS["PyTorch Geometric"] = Peer(graph_network, most_pairs=1e9)
