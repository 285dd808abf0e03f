"""Hub tokens, spread over the sequence, through which any two tokens are two steps apart."""

from ..layouts import Layout
from ..rules import Choice, Columns, Rows, Steps, lay_out
from .options import check_at_least, check_at_most


def hubs(
    num_tokens: int,
    *,
    num_hubs: int,
    window: int,
    two_way: bool = True,
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """`num_hubs` tokens at even distances are seen by all; each query also sees `window` positions on each side.

    Hubs are tokens of the sequence, as landmark and relay tokens are: Star-Transformer (Guo et al. 2019,
    arXiv:1902.09113) has one, and the global tokens of ETC (Ainslie et al. 2020, arXiv:2004.08483) are many.

    At most N (num_hubs + 2 window + 1) edges, and up to num_hubs N more if `two_way`; the union of the three, exactly.
    Hubs are best stored apart (`HubsApart`): at home, each would fill blocks of its own.

    two_way: the hubs also see all tokens.
    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens below 1, num_hubs or window below 0, num_hubs above num_tokens, or an unknown
    layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, num_hubs=num_hubs, window=window)
    check_at_most(num_tokens, "num_tokens", num_hubs=num_hubs)
    positions = tuple((2 * hub + 1) * num_tokens // (2 * num_hubs) for hub in range(num_hubs))
    far = min(window, num_tokens - 1)
    rule = Columns(positions) | Steps((range(-far, far + 1),))
    rule = rule | Rows(positions) if two_way else rule
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)
