"""What every layout tells of itself, however it stores which keys each query sees."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..rules import Rule

EMPTY = -1
NOT_BUILT = "pattern: its lists are built once, outside of torch.compile; call pattern.build() before"


def whole_numbers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """Positions as plain ints; raises ValueError, naming the option, for anything else."""
    try:
        if isinstance(values, str):
            raise TypeError
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError(f"{name}={values!r}: expected a list of whole numbers") from None


class Layout(ABC):
    """Which keys each query sees. N queries, M keys, H heads if each head has a pattern of its own.

    kind: how edges are stored, in words; implementations say by it which layouts they take.
    num_keys: M, the length of k.
    """

    kind: ClassVar[str]
    num_keys: int
    _rule: Rule | None = None

    @property
    def rule(self) -> Rule:
        """Whether a query sees a key, as a pattern stated it, or as read back from the lists of a layout that no
        pattern made. Patterns are combined by it. It stays on the CPU.

        Raises ValueError for a layout whose keys are not its queries, or that chooses keys by their content.
        """
        if self._rule is None:
            from ..rules.derived import rule_of

            self._rule = rule_of(self)
        return self._rule

    @rule.setter
    def rule(self, rule: Rule) -> None:
        self._rule = rule

    @property
    def depends_on_inputs(self) -> bool:
        """Whether `resolve` chooses the keys by q and k, so that they are not known before."""
        return False

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """N, the number of queries."""

    @property
    def num_heads(self) -> int | None:
        """H of a per-head pattern; None when all heads share one."""
        return None

    @property
    @abstractmethod
    def device(self) -> torch.device | None:
        """Where the layout's tensors are; None for a layout that has none and fits every device."""

    @property
    @abstractmethod
    def num_edges(self) -> int:
        """Attended (query, key) pairs, summed over the heads of a per-head pattern."""

    @property
    @abstractmethod
    def degrees(self) -> Tensor:
        """(M,) or (H, M): how many queries see each key."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same layout on another device, with everything that was derived from it already."""

    def build(self) -> None:  # noqa: B027 - layouts that derive nothing have nothing to do
        """Derive now what attention, forward and backward, would derive at its first use: before torch.compile, for
        which that is too late, or before a measurement."""

    @abstractmethod
    def dense_mask(self) -> Tensor:
        """(N, M) or (H, N, M) bool, True where a query sees a key: for tests and pictures, since it is of size N M."""

    def resolve(self, q: Tensor, k: Tensor) -> Layout:
        """The layout to use for these queries and keys (batch, heads, length, head_dim): itself unless it depends on
        them."""
        return self

    @property
    def density(self) -> float:
        """Share of all query-key pairs that is attended: 1 for dense attention."""
        return self.keys_per_query / self.num_keys

    @property
    def keys_per_query(self) -> float:
        """Mean number of keys that a query sees."""
        return self.num_edges / (self.num_tokens * (self.num_heads or 1))

    @property
    def max_degree(self) -> int:
        """Degree of the greatest hub."""
        return int(self.degrees.max())
