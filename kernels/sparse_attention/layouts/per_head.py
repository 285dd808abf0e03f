"""Layouts of different kinds for groups of heads, computed one group after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from .layout import Layout


class PerHead(Layout):
    """The first heads[0] heads take the first layout, the next heads[1] heads the second one, and so on.

    layouts: for the same numbers of queries and keys; one with lists per head has lists for just its own heads.
    heads:   how many heads each takes.

    Raises ValueError for layouts that do not fit one another or their heads.
    """

    kind = "per head"

    def __init__(self, layouts: Sequence[Layout], heads: Sequence[int]) -> None:
        if not layouts or len(layouts) != len(heads):
            raise ValueError(f"heads={list(heads)}: expected {len(layouts)} numbers, one for each layout, 1 or more")
        first = layouts[0]
        for layout, count in zip(layouts, heads, strict=True):
            if not isinstance(layout, Layout):
                raise ValueError(f"layouts: expected layouts, got {type(layout).__name__}")
            if count < 1:
                raise ValueError(f"heads={list(heads)}: expected 1 or more for each layout")
            if layout.num_heads not in (None, count):
                raise ValueError(f"heads={list(heads)}: a layout has lists for {layout.num_heads} heads, not {count}")
            if (layout.num_tokens, layout.num_keys) != (first.num_tokens, first.num_keys):
                raise ValueError(
                    f"layouts: expected {first.num_tokens} queries and {first.num_keys} keys in all of them, got "
                    f"{layout.num_tokens} and {layout.num_keys}"
                )
        self.layouts, self.heads = tuple(layouts), tuple(heads)
        self.num_keys = first.num_keys

    def groups(self) -> Iterator[tuple[slice, Layout]]:
        """The heads of each layout, and the layout."""
        for start, count, layout in zip(first_heads(self.heads), self.heads, self.layouts, strict=True):
            yield slice(start, start + count), layout

    @property
    def num_tokens(self) -> int:
        return self.layouts[0].num_tokens

    @property
    def num_heads(self) -> int:
        return sum(self.heads)

    @property
    def device(self) -> torch.device | None:
        return next((layout.device for layout in self.layouts if layout.device is not None), None)

    @property
    def depends_on_inputs(self) -> bool:
        return any(layout.depends_on_inputs for layout in self.layouts)

    @property
    def num_edges(self) -> int:
        return sum(
            layout.num_edges * (1 if layout.num_heads else count)
            for layout, count in zip(self.layouts, self.heads, strict=True)
        )

    @property
    def degrees(self) -> Tensor:
        device = self.device
        return torch.cat([
            layout.degrees.to(device).expand(count, -1) for layout, count in zip(self.layouts, self.heads, strict=True)
        ])  # fmt: skip

    def build(self) -> None:
        for layout in self.layouts:
            layout.build()

    def to(self, device: torch.device | str) -> PerHead:
        moved = [layout.to(device) for layout in self.layouts]
        if all(new is old for new, old in zip(moved, self.layouts, strict=True)):
            return self
        return PerHead(moved, self.heads)

    def dense_mask(self) -> Tensor:
        device = self.device
        return torch.cat([
            layout.dense_mask().to(device).expand(count, -1, -1)
            for layout, count in zip(self.layouts, self.heads, strict=True)
        ])  # fmt: skip

    def __repr__(self) -> str:
        groups = ", ".join(f"{count} x {layout}" for layout, count in zip(self.layouts, self.heads, strict=True))
        return f"PerHead({groups})"


def first_heads(heads: Sequence[int]) -> list[int]:
    """The head with which each group begins."""
    return list(accumulate(heads, initial=0))[:-1]
