"""Layouts that were built already, so that a pattern is worked out once for each length."""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from longtag.errors import UsageError
from sparse_attention import Layout

Pattern = Callable[[int], Layout]
"""From a number of tokens to the layout that says which keys each of them sees."""


class LayoutCache:
    """Calls `pattern(num_tokens)` once per length and device, and keeps the layouts used last.

    A copy or a pickle holds the pattern alone: layouts are cheap to build and can be large.

    builds: whether what a layout derives at its first use is derived at once, as compiled code needs it.
    """

    def __init__(self, pattern: Pattern, *, capacity: int = 4) -> None:
        self.pattern = pattern
        self.capacity = capacity
        self.builds = False
        self._layouts: OrderedDict[tuple[int, torch.device], Layout] = OrderedDict()

    def get(self, num_tokens: int, device: torch.device) -> Layout:
        """The layout for `num_tokens` tokens on `device`. Raises UsageError when the pattern refuses that length."""
        key = num_tokens, device
        if key not in self._layouts:
            try:
                layout = self.pattern(num_tokens)
            except ValueError as error:
                named = re.match(r"\w+(\.\w+)*=|(patterns|within)\b", str(error))
                raise UsageError(f"pattern{'.' if named else ': '}{error}") from error
            layout = layout.to(device)
            if self.builds:
                layout.build()
            self._layouts[key] = layout
            if len(self._layouts) > self.capacity:
                self._layouts.popitem(last=False)
        self._layouts.move_to_end(key)
        return self._layouts[key]

    def on_host(self, num_tokens: int) -> Layout:
        """The layout for `num_tokens` tokens, on the CPU."""
        return self.get(num_tokens, torch.device("cpu"))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layouts": OrderedDict()}
