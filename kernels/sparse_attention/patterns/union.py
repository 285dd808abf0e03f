"""Several patterns at once: a query sees what any of them lets it see."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from ..layouts import Layout
from ..rules import Choice, Listed, lay_out
from .options import check_at_least
from .pattern import Pattern, rules_of


def union(
    num_tokens: int,
    *,
    patterns: Mapping[str, Pattern] | Sequence[Pattern],
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """What any of `patterns` allows; a pair that several of them allow counts once.

    patterns: functions from num_tokens to a layout, such as `partial(patterns.window, window=4)`; a list, or by name.
    layout, block_size: how the whole is stored, as `rules.lay_out` takes them; those of the parts do not matter.

    At most the sum of the edges of the patterns, exactly that less what several of them share.

    Raises ValueError for no pattern at all, for one that refuses its options or chooses keys by their content, and for
    an unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    rules = rules_of(num_tokens, patterns)
    # Every rule is asked of the keys of those behind it, and to search a table takes longest.
    rules.sort(key=lambda rule: isinstance(rule, Listed))
    return lay_out(reduce(or_, rules), num_tokens, layout=layout, block_size=block_size)
