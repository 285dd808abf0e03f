"""How much memory a card has."""

from longtag.errors import UsageError

GIB = 2**30

CARDS = {
    "h200": 139.8,
    "h100": 79.1,
    "a100": 79.1,
    "a100-40": 39.4,
    "a6000": 47.5,
    "l40s": 44.4,
    "rtx4090": 23.6,
    "rtx3090": 23.6,
    "l4": 22.0,
    "v100": 31.7,
    "v100-16": 15.8,
    "t4": 14.6,
}
"""GiB that CUDA says are there, which is a little less than the name of the card."""


def card_bytes(card: str) -> int:
    """Bytes of a card, given by its size in GiB or by a name of `CARDS`. Raises UsageError for anything else."""
    if card.lower() in CARDS:
        return round(CARDS[card.lower()] * GIB)
    try:
        gib = float(card)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise UsageError(f"card={card}: expected a number of GiB, or one of {', '.join(CARDS)}")
    return round(gib * GIB)
