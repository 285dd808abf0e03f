"""A rule of its own for each head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rule import Rule


@dataclass(frozen=True, eq=False)
class EachHead(Rule):
    """Head h sees what rules[h] allows. It is laid out head by head: everything but `allowed` is asked of one head."""

    rules: tuple[Rule, ...]

    @property
    def num_heads(self) -> int:
        return len(self.rules)

    def for_head(self, head: int) -> Rule:
        return self.rules[head]

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        """(H, ...) bool."""
        return torch.stack([rule.allowed(query, key) for rule in self.rules])

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        raise TypeError("heads list keys of their own; ask for_head(h)")

    def num_slots(self, num_tokens: int) -> int:
        return max(rule.num_slots(num_tokens) for rule in self.rules)

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        raise TypeError("heads have tiles of their own; ask for_head(h)")

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        raise TypeError("heads have tiles of their own; ask for_head(h)")
