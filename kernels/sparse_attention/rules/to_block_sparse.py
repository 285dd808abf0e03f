"""From a rule to lists of blocks with masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import BlockSparse
from ..layouts.bit_masks import pack_bits, words_of
from ..layouts.block_sparse import WHOLE as WHOLE_BLOCK
from .rule import NOTHING, Rule, relabelled, split_codes

CHUNK_PAIRS = 2**22
"""Pairs of a query and a key for which a rule is evaluated at once."""

Entries = tuple[Tensor, Tensor, Tensor, Tensor]
"""rows, columns, masks (e,) int64 each, and the masks' words (U, B, W) int32; every entry holds an allowed pair."""


def to_block_sparse(rule: Rule, num_tokens: int, block_size: int) -> BlockSparse:
    """Of the tiles that look alike one is evaluated; equal masks are stored once."""
    if rule.num_heads is None:
        parts = [_entries(rule, num_tokens, block_size)]
    else:
        parts = [_entries(rule.for_head(head), num_tokens, block_size) for head in range(rule.num_heads)]
    num_rows, words = -(-num_tokens // block_size), [part[3] for part in parts]
    before = [sum(len(other) for other in words[:head]) for head in range(len(parts))]
    return BlockSparse(
        torch.cat([row + head * num_rows for head, (row, _, _, _) in enumerate(parts)]),
        torch.cat([column for _, column, _, _ in parts]),
        torch.cat([mask.where(mask < 0, mask + before[head]) for head, (_, _, mask, _) in enumerate(parts)]),
        torch.cat(words),
        block_size=block_size,
        num_tokens=num_tokens,
        num_heads=rule.num_heads,
        validate=False,
    )


def _entries(rule: Rule, num_tokens: int, size: int) -> Entries:
    row, column = split_codes(rule.tiles(size, num_tokens), size, num_tokens)
    kind = rule.kinds(row * size, column * size, size)
    row, column, kind = _kept(kind != NOTHING, row, column, kind)
    partial = (kind >= 0).nonzero().squeeze(1)
    name, count = relabelled(kind[partial])
    count = count if partial.numel() else 0
    # The first tile of each kind stands for all of them.
    first = partial.new_zeros(count).scatter_reduce_(0, name, partial, "amin", include_self=False)
    words = _evaluate(rule, row[first] * size, column[first] * size, size)
    distinct, which = _distinct(words)
    is_empty, is_whole = (distinct == 0).all(dim=1), (distinct == _whole_words(size)).all(dim=1)
    # What is neither moves up to the front of the masks.
    kept = ~(is_empty | is_whole)
    number = torch.where(is_empty, NOTHING, torch.where(is_whole, WHOLE_BLOCK, kept.cumsum(0) - 1))
    mask = torch.full_like(row, WHOLE_BLOCK)
    mask[partial] = number[which][name]
    row, column, mask = _kept(mask != NOTHING, row, column, mask)
    return row, column, mask, distinct[kept].view(-1, size, words_of(size))


def _kept(wanted: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    # Copies are what takes time with millions of tiles.
    return tensors if bool(wanted.all()) else tuple(tensor[wanted] for tensor in tensors)


def _evaluate(rule: Rule, query: Tensor, key: Tensor, size: int) -> Tensor:
    """(e, B W) int32: the words of the tiles that begin at these positions."""
    inside = torch.arange(size)
    found = [torch.empty((0, size * words_of(size)), dtype=torch.int32)]
    step = max(1, CHUNK_PAIRS // size**2)
    for queries, keys in zip(query.split(step), key.split(step), strict=True):
        if queries.numel():
            bits = rule.allowed((queries[:, None] + inside)[:, :, None], (keys[:, None] + inside)[:, None, :])
            found.append(pack_bits(bits.expand(-1, size, size).contiguous()).flatten(1))
    return torch.cat(found)


def _distinct(words: Tensor) -> tuple[Tensor, Tensor]:
    if words.shape[0] == 0:
        return words, torch.empty(0, dtype=torch.int64)
    return words.unique(dim=0, return_inverse=True)


def _whole_words(size: int) -> Tensor:
    """A row of 16 fills half a word only."""
    return pack_bits(torch.ones(1, size, size, dtype=torch.bool)).flatten()
