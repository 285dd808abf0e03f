"""The tensors of a block sparse layout that kernels read, in one direction."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Lists:
    """blocks, masks (E,) and mask_words (U, B, W) as in `BlockLists` and `BlockSparse`; items (I, 4) and splits (S, 3)
    as in `BlockWork`; per_head: whether each head has rows of its own, and not all the same."""

    mask_words: Tensor
    blocks: Tensor
    masks: Tensor
    items: Tensor
    splits: Tensor
    per_head: bool

    @property
    def block_size(self) -> int:
        return self.mask_words.shape[1]

    @property
    def num_items(self) -> int:
        return self.items.shape[0]

    @property
    def num_segments(self) -> int:
        return self.splits.shape[0]

    def groups(self, heads: int) -> int:
        """How often all items are gone through: for each head, or once if items tell the head."""
        return 1 if self.per_head else heads

    def num_rows(self, length: int) -> int:
        """Rows of one head whose queries (transposed: keys) are `length` long."""
        return -(-length // self.block_size)
