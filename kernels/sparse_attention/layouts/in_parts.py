"""A pattern in parts that share no pair, each stored as suits it, such as a window in blocks and random keys in a list.

Attention over each part gives an output and the log of its sum of exponentials, and from these the whole follows
exactly: out = sum_i exp(lse_i - lse) out_i, where lse is the log of the sum of all exp(lse_i).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .block_sparse import BlockSparse
from .hubs_apart import HubsApart
from .index_list import IndexList
from .layout import Layout


class InParts(Layout):
    """A query sees what any of the parts lets it see. No pair may be in two of them, or it would count twice.

    parts: two or more, for the same numbers of queries and keys, without lists per head and full rows.

    Raises ValueError for layouts that do not fit one another, or of other kinds.
    """

    kind = "in parts"

    def __init__(self, parts: Sequence[Layout]) -> None:
        if len(parts) < 2:
            raise ValueError(f"parts: expected two or more, got {len(parts)}")
        first, checked = parts[0], []
        for part in parts:
            if not isinstance(part, IndexList | BlockSparse | HubsApart) or part.num_heads is not None:
                raise ValueError(f"parts: expected lists or blocks that all heads share, got {part}")
            if isinstance(part, IndexList) and part.full_rows:
                raise ValueError(f"parts: expected no full rows in an index list, got {part}; HubsApart takes them")
            if (part.num_tokens, part.num_keys) != (first.num_tokens, first.num_keys):
                raise ValueError(
                    f"parts: expected {first.num_tokens} queries and {first.num_keys} keys in all of them, got "
                    f"{part.num_tokens} and {part.num_keys}"
                )
            if part.device != first.device:
                raise ValueError(f"parts: expected all of them on {first.device}, got one on {part.device}")
            checked.append(part)
        self.parts: tuple[IndexList | BlockSparse | HubsApart, ...] = tuple(checked)
        self.num_keys = first.num_keys

    @property
    def num_tokens(self) -> int:
        return self.parts[0].num_tokens

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def num_edges(self) -> int:
        return sum(part.num_edges for part in self.parts)

    @property
    def degrees(self) -> Tensor:
        return torch.stack([part.degrees.long() for part in self.parts]).sum(dim=0)

    def build(self) -> None:
        for part in self.parts:
            part.build()

    def to(self, device: torch.device | str) -> InParts:
        moved = [part.to(device) for part in self.parts]
        if all(new is old for new, old in zip(moved, self.parts, strict=True)):
            return self
        whole = InParts(moved)
        whole._rule = self._rule
        return whole

    def dense_mask(self) -> Tensor:
        return torch.stack([part.dense_mask() for part in self.parts]).any(dim=0)

    def __repr__(self) -> str:
        return f"InParts({', '.join(map(repr, self.parts))})"
