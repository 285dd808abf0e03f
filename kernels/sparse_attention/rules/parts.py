"""A union taken apart into what may be stored by itself."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import NamedTuple

from .global_tokens import Columns, Rows
from .rule import Rule, Union
from .steps import Steps


class Parts(NamedTuple):
    """A rule is the union of `members` and of its hubs; several of them may allow the same pair.

    columns: keys that every query sees; rows: queries that see every key. Ascending, none twice.
    """

    members: tuple[Rule, ...]
    columns: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def rest(self) -> Rule:
        """What is allowed beside the hubs."""
        return union_of(self.members)

    @property
    def has_hubs(self) -> bool:
        return bool(self.columns or self.rows)

    @property
    def rule(self) -> Rule:
        return self.rest | Columns(self.columns) | Rows(self.rows)


def take_apart(rule: Rule, num_tokens: int) -> Parts:
    """One that differs from head to head stays as it is, and so does what is no union."""
    if rule.num_heads is not None:
        return Parts((rule,), (), ())
    members = _members(rule)
    columns, rows = (
        {position for member in members if isinstance(member, kind) for position in member.positions}
        for kind in (Columns, Rows)
    )
    return Parts(
        tuple(member for member in members if not isinstance(member, Columns | Rows)),
        tuple(sorted(position for position in columns if position < num_tokens)),
        tuple(sorted(position for position in rows if position < num_tokens)),
    )


def union_of(rules: tuple[Rule, ...]) -> Rule:
    """What any of them allows; nothing if there are none."""
    return reduce(or_, rules) if rules else Steps(())


def _members(rule: Rule) -> list[Rule]:
    return [*_members(rule.first), *_members(rule.second)] if isinstance(rule, Union) else [rule]
