"""Several documents packed into one sequence, with no attention across a boundary."""

from collections.abc import Sequence

import torch

from ..layouts import Layout
from ..rules import Choice, Documents, Rule, lay_out
from .dense import dense
from .options import check_at_least, check_list
from .pattern import Pattern, rule_of


def documents(
    num_tokens: int,
    *,
    lengths: int | Sequence[int],
    within: Pattern = dense,
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """Each query sees, of its own document alone, what `within` lets it see there.

    `within` is built for each length, as if the document were the sequence: a global token of it is global in every
    document, and documents of the same length see the same draw of a random pattern. Packing without attention across
    documents is described by Krell et al. (2021, arXiv:2107.02027).

    The sum over the documents of the edges of `within`: of L^2 for a document of length L that sees itself as a whole.

    lengths: of the documents, one after the other, together num_tokens; or one length for all, the last being shorter.
    within:  a function from a number of tokens to a layout, such as `partial(patterns.window, window=4)`.
    layout, block_size: how the whole is stored, as `rules.lay_out` takes them.

    Raises ValueError for lengths below 1 or of another sum, for `within` that refuses its options or chooses keys by
    their content, and for an unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    lengths_d = torch.tensor(_each_length(num_tokens, lengths))
    rules: dict[Rule, int] = {}
    which_of_length = torch.zeros(int(lengths_d.max()) + 1, dtype=torch.int64)
    for length in lengths_d.unique().tolist():
        rule = rule_of("within", within, length)
        which_of_length[length] = rules.setdefault(rule, len(rules))
    starts = lengths_d.cumsum(0) - lengths_d
    rule = Documents(starts, lengths_d, tuple(rules), which_of_length[lengths_d])
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)


def _each_length(num_tokens: int, lengths: int | Sequence[int]) -> list[int]:
    if isinstance(lengths, Sequence):
        check_list(1, "[600, 400]", lengths=lengths)
        if sum(lengths) != num_tokens:
            raise ValueError(
                f"lengths={list(lengths)}: they add up to {sum(lengths)}, expected num_tokens={num_tokens}"
            )
        return list(lengths)
    check_at_least(1, lengths=lengths)
    whole, rest = divmod(num_tokens, lengths)
    return [lengths] * whole + ([rest] if rest else [])
