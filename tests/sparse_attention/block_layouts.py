"""Awkward block sparse layouts, drawn afresh from a seed."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparse_attention import BlockSparse, HubsApart, IndexList, InParts
from sparse_attention.layouts.bit_masks import pack_bits
from sparse_attention.rules import Listed
from sparse_attention.rules.to_index_list import to_index_list

NUM_MASKS = 4


def _drawn(seen: Tensor, generator: torch.Generator) -> Tensor:
    return seen


def _global_rows_and_columns(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., 0, :] = seen[..., -1, :] = True
    seen[..., 0] = seen[..., -1] = True
    return seen


def _empty_rows(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., ::2, :] = False
    return seen


def _unseen_columns(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., 1:2] = False
    return seen


AWKWARD_BLOCKS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "drawn at random": _drawn,
    "global rows and columns": _global_rows_and_columns,
    "empty rows": _empty_rows,
    "unseen columns": _unseen_columns,
    "all blocks": lambda seen, generator: torch.ones_like(seen),
    "no block": lambda seen, generator: torch.zeros_like(seen),
}


def block_layout(
    name: str = "drawn at random",
    *,
    num_tokens: int,
    block_size: int = 16,
    num_keys: int | None = None,
    heads: int | None = None,
    partial: float = 0.5,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> BlockSparse:
    """The blocks of `AWKWARD_BLOCKS` called `name`; a share of `partial` of them with masks drawn at random.

    One of the masks lets nothing pass, and one leaves half of the queries without a key.
    """
    generator = torch.Generator().manual_seed(seed)
    num_keys = num_tokens if num_keys is None else num_keys
    num_rows, num_columns = -(-num_tokens // block_size), -(-num_keys // block_size)
    seen = torch.rand(heads or 1, num_rows, num_columns, generator=generator) < 0.5
    head, row, column = AWKWARD_BLOCKS[name](seen, generator).nonzero(as_tuple=True)
    masks = torch.randint(NUM_MASKS, row.shape, generator=generator)
    masks = masks.masked_fill(torch.rand(row.shape, generator=generator) >= partial, -1)
    bits = torch.rand(NUM_MASKS, block_size, block_size, generator=generator) < 0.5
    bits[0] = False
    bits[1, ::2] = False
    return BlockSparse(
        head * num_rows + row, column, masks, pack_bits(bits),
        block_size=block_size, num_tokens=num_tokens, num_keys=num_keys, num_heads=heads,
    ).to(device)  # fmt: skip


AWKWARD_HUBS: dict[str, Callable[[int], tuple[list[int], list[int]]]] = {
    "both ways": lambda n: ([n // 5, n // 2, n // 3], [n // 5, n // 2, n // 3]),
    "at both ends": lambda n: ([0, n - 1], [0, n - 1]),
    "one, that all see": lambda n: ([n // 2], []),
    "one, that sees all": lambda n: ([], [n // 2]),
    "other keys than queries": lambda n: (list(range(0, n, 9)), [n - 1, 3]),
    "every second token": lambda n: (list(range(0, n, 2)), list(range(1, n, 2))),
    "all tokens": lambda n: (list(range(n)), list(range(n))),
}


def hubs_layout(
    name: str,
    *,
    num_tokens: int,
    block_size: int = 16,
    blocks: str = "drawn at random",
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> HubsApart:
    """The hubs of `AWKWARD_HUBS` called `name`, beside blocks that say something of hubs as well."""
    rest = block_layout(blocks, num_tokens=num_tokens, block_size=block_size, seed=seed)
    columns, rows = AWKWARD_HUBS[name](num_tokens)
    return HubsApart(rest, columns=columns, rows=rows).to(device)


def in_parts_layout(
    hubs: str | None = "both ways", *, num_tokens: int, device: torch.device | str = "cpu", seed: int = 0
) -> InParts:
    """Drawn blocks, with the hubs of `AWKWARD_HUBS` called so, and a list of other keys.

    Of the queries that are no hubs, some see keys in blocks alone, some in the list alone, some in both, some none.
    """
    blocks: BlockSparse | HubsApart = block_layout("empty rows", num_tokens=num_tokens, seed=seed)
    if hubs is not None:
        blocks = hubs_layout(hubs, num_tokens=num_tokens, blocks="empty rows", seed=seed)
    table = torch.randint(num_tokens, (num_tokens, 3), generator=torch.Generator().manual_seed(seed))
    table[::5] = -1
    listed = to_index_list(Listed(table) - blocks.rule, num_tokens)
    assert isinstance(listed, IndexList)
    return InParts([blocks, listed]).to(device)
