"""A source that is not part of longtag: what somebody who adds one would write."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from longtag.data import Block, Split, TokenIds


class Parity:
    """The label of a token says whether it is odd."""

    def __init__(self, *, length: int) -> None:
        self.length = length
        self.inputs = TokenIds(10)
        self.class_names = ("even", "odd")
        self.description = "parity of digits"

    def blocks(self, split: Split) -> Sequence[Block]:
        return [Block(0, 0, self.length)]

    def read(
        self, block: Block, start: int, length: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        digits = torch.arange(start, start + length) * 7 % 10
        return digits, digits % 2

    def class_counts(self, split: Split) -> np.ndarray:
        return np.array([self.length // 2, self.length // 2])
