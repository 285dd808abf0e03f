"""Constructors given what is of another kind altogether: a ValueError that names the option, as for any bad value."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from sparse_attention import BlockSparse, HubsApart, IndexList, InParts, Nearest, PerHead

TABLE = torch.zeros(6, 2, dtype=torch.int64)
ENTRY = torch.zeros(1, dtype=torch.int64)
BLOCKS = partial(BlockSparse, ENTRY, ENTRY, block_size=16, num_tokens=6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IndexList(TABLE, 6.5), "num_keys=6.5: expected 1 to .*, a whole number"),  # pyright: ignore
        (lambda: IndexList(TABLE, full_rows="12"), "full_rows='12': expected a list of whole numbers"),  # pyright: ignore
        (lambda: IndexList(TABLE, full_rows=[0.5]), r"full_rows=\[0.5\]: expected a list of whole"),  # pyright: ignore
        (lambda: IndexList(TABLE, full_rows=3), "full_rows=3: expected a list of whole numbers"),  # pyright: ignore
        (lambda: IndexList(TABLE, full_rows=torch.tensor([1, 1])), "query 1 is listed twice"),  # pyright: ignore
        (lambda: BLOCKS(num_heads=0), "num_heads=0: expected 1 to"),
        (lambda: BLOCKS(num_keys=2.5), "num_keys=2.5: expected 1 to .*, a whole number"),  # pyright: ignore
        (lambda: BlockSparse([0], [0], block_size=16, num_tokens=6), "rows, blocks: expected tensors"),  # pyright: ignore
        (partial(BlockSparse.from_table, TABLE, block_size=0, num_tokens=6), "block_size=0: expected one of 16"),
        (
            partial(BlockSparse.from_table, TABLE[:1, :0], block_size=16, num_tokens=6),
            "table: expected one slot",
        ),
        (lambda: HubsApart(IndexList(TABLE), columns=[0]), "rest: expected as many keys"),  # pyright: ignore
        (lambda: HubsApart(BLOCKS(), columns=["a"]), r"columns=\['a'\]: expected a list of whole"),  # pyright: ignore
        (lambda: PerHead([TABLE], [1]), "layouts: expected layouts, got Tensor"),  # pyright: ignore
        (
            lambda: InParts([BLOCKS(), IndexList(TABLE).to("meta")]),
            "all of them on cpu, got one on meta",
        ),
        (lambda: Nearest(6, num_nearest=1.5), "num_nearest=1.5: expected 1 or more, a whole number"),  # pyright: ignore
    ],
)
def test_it_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
