"""Every query sees every key: the attention that sparse patterns are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import Layout


class Dense(Layout):
    """Each query sees all keys, or all keys up to its own position when `causal`.

    num_tokens: N, the number of queries.
    num_keys:   M, the length of k; N where it is not given, and always N when `causal`.

    Raises ValueError for lengths below 1, and for a causal layout whose lengths differ.
    """

    kind = "dense"

    def __init__(self, num_tokens: int, num_keys: int | None = None, *, causal: bool = False) -> None:
        self.num_keys = num_tokens if num_keys is None else num_keys
        self.causal = causal
        self._num_tokens = num_tokens
        for name, length in (("num_tokens", num_tokens), ("num_keys", self.num_keys)):
            if not 1 <= length < 2**31:
                raise ValueError(f"{name}={length}: expected 1 to {2**31 - 1}")
        if causal and self.num_keys != num_tokens:
            raise ValueError(f"causal=True: expected as many keys as queries, got {self.num_keys} and {num_tokens}")

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def device(self) -> None:
        return None

    @property
    def num_edges(self) -> int:
        n = self.num_tokens
        return n * (n + 1) // 2 if self.causal else n * self.num_keys

    @property
    def degrees(self) -> Tensor:
        if self.causal:
            return torch.arange(self.num_tokens, 0, -1)
        return torch.full((self.num_keys,), self.num_tokens)

    def to(self, device: torch.device | str) -> Dense:
        return self

    def dense_mask(self) -> Tensor:
        mask = torch.ones(self.num_tokens, self.num_keys, dtype=torch.bool)
        return mask.tril() if self.causal else mask

    def __repr__(self) -> str:
        return f"Dense({self.num_tokens} queries, {self.num_keys} keys{', causal' if self.causal else ''})"
