"""Window, global and random blocks, after BigBird."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layouts import Layout
from ..layouts.block_sparse import BLOCK_SIZES
from ..rules import Blocks, Columns, EachHead, Rows, Rule, lay_out
from .options import check_at_least


def bigbird(
    num_tokens: int,
    *,
    block_size: int = 64,
    num_window: int = 3,
    num_global: int = 2,
    num_random: int = 3,
    seed: int = 0,
    num_heads: int | None = None,
) -> Layout:
    """Blocks of queries see blocks of keys: those around them, global ones, and some at random.

    BigBird (Zaheer et al. 2020, arXiv:2007.14062, section 2 and appendix D), with its block-sparse implementation's
    choice of global blocks. Random blocks are drawn once, on the CPU, without replacement, from those that a block of
    queries would not see otherwise; all of these where there are fewer.

    About N block_size (num_window + num_global + num_random) edges, and num_global block_size N for the global rows.

    block_size: positions in a block: 16, 32, 64 or 128.
    num_window: blocks in the window, odd: the query's own and as many on each side; clipped at the ends.
    num_global: blocks that see all and are seen by all: the first half of them, rounded up, at the start of the
                sequence, the others at its end.
    num_random: blocks drawn for each block of queries.
    seed:       of the draw: the same on every device.
    num_heads:  draws of its own for each of so many heads; None for one draw that all heads share.

    Raises ValueError for num_tokens or num_heads below 1, an even num_window, numbers below 0, or an unknown block
    size.
    """
    check_at_least(1, num_tokens=num_tokens, **({} if num_heads is None else {"num_heads": num_heads}))
    check_at_least(0, num_random=num_random)
    _check_blocks(block_size, num_window, num_global)
    generator = torch.Generator().manual_seed(seed)
    num_blocks = -(-num_tokens // block_size)
    draws = [_draw(num_blocks, num_window, num_global, num_random, generator) for _ in range(num_heads or 1)]
    drawn = draws[0] if num_heads is None else torch.stack(draws)
    return with_random_blocks(num_tokens, drawn, block_size=block_size, num_window=num_window, num_global=num_global)


def with_random_blocks(
    num_tokens: int,
    random_blocks: Tensor | Sequence[Sequence[int]],
    *,
    block_size: int = 64,
    num_window: int = 3,
    num_global: int = 2,
) -> Layout:
    """`bigbird` with given random blocks: (R, r), or (H, R, r) for a draw per head, for the R = ceil(N / block_size)
    blocks of queries; -1 for none.

    Raises ValueError as `bigbird` does, and for random blocks of another shape or out of range.
    """
    check_at_least(1, num_tokens=num_tokens)
    _check_blocks(block_size, num_window, num_global)
    table, num_blocks = torch.as_tensor(random_blocks, dtype=torch.int64).cpu(), -(-num_tokens // block_size)
    if table.dim() not in (2, 3) or table.shape[-2] != num_blocks:
        raise ValueError(
            f"random_blocks: expected shape (blocks, r) or (heads, blocks, r) with {num_blocks} blocks of {block_size} "
            f"for {num_tokens} tokens, got {tuple(table.shape)}"
        )
    if table.numel() and not -1 <= int(table.min()) <= int(table.max()) < num_blocks:
        raise ValueError(
            f"random_blocks: hold {int(table.min())} to {int(table.max())}; expected a block from 0 to "
            f"{num_blocks - 1}, or -1 for none"
        )
    rows = torch.arange(num_blocks)[:, None]
    window = rows + torch.arange(-(num_window // 2), num_window // 2 + 1)
    at_start, at_end = _global_blocks(num_global, num_blocks)

    def seen(drawn: Tensor) -> Rule:
        columns = torch.cat((window, drawn), dim=1)
        codes = (rows * num_blocks + columns)[(columns >= 0) & (columns < num_blocks)]
        return Blocks.whole(block_size, num_tokens, codes)

    ends = (*range(at_start * block_size), *range((num_blocks - at_end) * block_size, num_blocks * block_size))
    everywhere = tuple(dict.fromkeys(ends))
    rule = seen(table) if table.dim() == 2 else EachHead(tuple(seen(drawn) for drawn in table))
    rule = rule | Columns(everywhere) | Rows(everywhere)
    return lay_out(rule, num_tokens, layout="block_sparse", block_size=block_size)


def _check_blocks(block_size: int, num_window: int, num_global: int) -> None:
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size={block_size}: expected one of {', '.join(map(str, BLOCK_SIZES))}")
    check_at_least(0, num_global=num_global)
    check_at_least(1, num_window=num_window)
    if num_window % 2 == 0:
        raise ValueError(
            f"num_window={num_window}: expected an odd number, the query's own block and as many each side"
        )


def _global_blocks(num_global: int, num_blocks: int) -> tuple[int, int]:
    """How many blocks are global at the start, and how many at the end."""
    at_start = min(-(-num_global // 2), num_blocks)
    return at_start, min(num_global // 2, num_blocks - at_start)


def _draw(num_blocks: int, num_window: int, num_global: int, num_random: int, generator: torch.Generator) -> Tensor:
    """(R, num_random) int64: distinct blocks that are neither global nor in the window; -1 where too few are left."""
    at_start, at_end = _global_blocks(num_global, num_blocks)
    row, first, end = torch.arange(num_blocks), at_start, num_blocks - at_end
    window_start = (row - num_window // 2).clamp(first, end)
    window_end = (row + num_window // 2 + 1).clamp(first, end)
    left = (end - first) - (window_end - window_start)
    # Floyd's method draws distinct numbers below `left` without a list of all of them (Bentley and Floyd 1987).
    drawn = torch.full((num_blocks, num_random), -1)
    for turn in range(num_random):
        last = left - num_random + turn
        share = torch.rand(num_blocks, generator=generator, dtype=torch.float64)
        number = (share * (last + 1)).long()
        number = torch.where((drawn == number[:, None]).any(dim=1), last, number)
        # With too few left, the first turns draw nothing and the others, one after the other, all there are.
        drawn[:, turn] = number.where(last >= 0, -1)
    skipped = first + drawn + (first + drawn >= window_start[:, None]) * (window_end - window_start)[:, None]
    is_global = (row < at_start) | (row >= end)
    return skipped.masked_fill((drawn < 0) | is_global[:, None], -1)
