"""Keys chosen by their content: for each query those with the highest scores among keys that hash alike.

Shapes: H heads, those of all sequences of a batch; N tokens, d head_dim, p signs, c queries in a chunk, w keys that a
chunk is compared with, n slots.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from .index_list import IndexList
from .layout import EMPTY, Layout

MOST_SCORES = {"cpu": 2**22, "cuda": 2**26}
"""Scores held at once: 16 MiB of float32 on a CPU, 256 MiB on a GPU."""

MOST_FEATURES = 1024
"""The widest head that can be projected."""


class Nearest(Layout):
    """Each query sees the `num_nearest` keys that score highest among those near it in a hashed order.

    Signs of random projections (Charikar 2002) give every query and key a number, close for vectors of small angle
    when read as a Gray code. Keys are sorted by it; `chunk` queries that follow one another in the same order are
    compared exactly with the `chunk` keys around their place and as many on each side, as the chunks of Reformer
    (Kitaev, Kaiser and Levskaya 2020, arXiv:2001.04451) are with their neighbours. The choice is made again at every
    call, is the same for the same q and k, and carries no gradient.

    num_tokens:  N, the number of queries and of keys.
    num_nearest: n, keys that a query sees; fewer where it may see fewer.
    chunk:       queries that are compared with the same 3 chunk keys.
    causal:      leave out the keys after the query. One whose candidates all come after it sees no key.
    seed:        of the projections: the same on every device.

    Raises ValueError for numbers below 1, or num_nearest above 3 chunk.
    """

    kind = "index list"

    def __init__(
        self, num_tokens: int, *, num_nearest: int, chunk: int = 64, causal: bool = False, seed: int = 0
    ) -> None:
        for name, value in (("num_tokens", num_tokens), ("num_nearest", num_nearest), ("chunk", chunk)):
            if isinstance(value, float) or value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more, a whole number")
        if num_nearest > 3 * chunk:
            raise ValueError(f"num_nearest={num_nearest}: expected at most 3 times chunk={chunk}")
        self.num_keys = self._num_tokens = num_tokens
        self.num_nearest, self.chunk, self.causal = num_nearest, chunk, causal
        # Enough signs for about as many codes as there are chunks; drawn on the CPU for any width of heads.
        generator = torch.Generator().manual_seed(seed)
        self._directions = torch.randn((MOST_FEATURES, max(1, (num_tokens // chunk).bit_length())), generator=generator)

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def num_slots(self) -> int:
        """n, the most keys that a query sees."""
        return min(self.num_nearest, self._num_tokens)

    @property
    def device(self) -> torch.device:
        return self._directions.device

    @property
    def depends_on_inputs(self) -> bool:
        return True

    @property
    def num_edges(self) -> int:
        """At most as many: with `causal`, a query may find fewer candidates before it."""
        return self._num_tokens * self.num_slots

    @property
    def degrees(self) -> Tensor:
        raise ValueError("degrees: known only for given q and k; ask resolve(q, k).degrees")

    def dense_mask(self) -> Tensor:
        raise ValueError("dense_mask: known only for given q and k; ask resolve(q, k).dense_mask()")

    def to(self, device: torch.device | str) -> Nearest:
        if self._directions.to(device) is self._directions:
            return self
        moved = copy(self)
        moved._directions = self._directions.to(device)
        return moved

    @torch.no_grad()
    def resolve(self, q: Tensor, k: Tensor) -> IndexList:
        """The keys of these queries: an index list of batch x heads heads, those of a sequence behind one another.

        Raises ValueError for a head_dim above 1024.
        """
        if q.shape[-1] > MOST_FEATURES:
            raise ValueError(f"q: head_dim {q.shape[-1]} is above {MOST_FEATURES}, for which there are projections")
        with torch.autocast(q.device.type, enabled=False):
            return self._resolve(q, k)

    def _resolve(self, q: Tensor, k: Tensor) -> IndexList:
        queries, keys = (x.detach().flatten(0, 1) for x in (q, k))
        # The order of a query's scores does not change when all keys move alike; angles tell more about a centre.
        centre = keys.float().mean(dim=1, keepdim=True)
        directions = self._directions[: q.shape[-1]]
        lists = []
        # Head by head, so that what is held at once does not grow with their number.
        for queries_nd, keys_nd, centre_1d in zip(queries, keys, centre, strict=True):
            code_of_query = _gray_code(queries_nd.float() @ directions)
            code_of_key = _gray_code((keys_nd.float() - centre_1d) @ directions)
            lists.append(self._nearest(queries_nd, keys_nd, code_of_query, code_of_key))
        return IndexList(torch.stack(lists), validate=False)

    def _nearest(self, queries_nd: Tensor, keys_nd: Tensor, code_of_query: Tensor, code_of_key: Tensor) -> Tensor:
        """(N, n) int32."""
        tokens, chunk = self.num_tokens, min(self.chunk, self.num_tokens)
        width = min(3 * chunk, tokens)
        sorted_codes, key_order = code_of_key.sort(stable=True)
        query_order = code_of_query.argsort(stable=True)
        # The last chunk is filled up with its last query, which then gets the same answer several times.
        padding = -tokens % chunk
        query_order = torch.cat((query_order, query_order[-1:].expand(padding))).view(-1, chunk)
        middle_code = code_of_query[query_order[:, chunk // 2]]
        place = torch.searchsorted(sorted_codes, middle_code) + torch.searchsorted(
            sorted_codes, middle_code, right=True
        )
        first = (place // 2 - width // 2).clamp(0, tokens - width)
        nearest = torch.empty((tokens, self.num_slots), dtype=torch.int32, device=queries_nd.device)
        step = max(1, MOST_SCORES.get(queries_nd.device.type, 2**24) // (chunk * width))
        for chosen, starts in zip(query_order.split(step), first.split(step), strict=True):
            candidates = key_order[starts[:, None] + torch.arange(width, device=starts.device)]
            score = queries_nd[chosen] @ keys_nd[candidates].transpose(1, 2)
            if self.causal:
                # Keys that count stay above those that do not, also where 16 bits cannot hold their score.
                score = score.clamp(min=torch.finfo(score.dtype).min).masked_fill(
                    candidates[:, None, :] > chosen[:, :, None], -torch.inf
                )
            slot = score.topk(self.num_slots, dim=-1).indices
            found = candidates[:, None, :].expand_as(score).gather(2, slot)
            if self.causal:
                found = found.masked_fill(found > chosen[:, :, None], EMPTY)
            nearest[chosen.flatten()] = found.flatten(0, 1).int()
        return nearest

    def __repr__(self) -> str:
        causal = ", causal" if self.causal else ""
        return f"Nearest({self.num_tokens} queries, {self.num_nearest} keys each, chunks of {self.chunk}{causal})"


def _gray_code(projection_np: Tensor) -> Tensor:
    """(N,) int64: the place of the signs in a sequence in which neighbours differ in one sign."""
    signs = projection_np > 0
    # From a Gray code to its place: each bit of the place is the parity of all signs up to it.
    bits = signs.cumsum(dim=1) % 2
    weights = 2 ** torch.arange(bits.shape[1] - 1, -1, -1, device=bits.device)
    return (bits * weights).sum(dim=1)
