"""What a config will need: `python -m longtag.memory.estimate [card=80] [option=value ...]`.

Options are those of train.py. card is the memory of one GPU, in GiB or by a name such as h100. Nothing is trained, no
GPU is needed, and nothing is written. With trainer.accelerator=cpu the step is that of a CPU, otherwise of a GPU.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from longtag.entry import readable_errors

CONF = Path(__file__).parents[4] / "conf"


def main(arguments: Sequence[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    cards = [item.removeprefix("card=") for item in arguments if item.startswith("card=")]
    overrides = [item for item in arguments if not item.startswith("card=")]
    with readable_errors(CONF):
        try:
            _estimate(overrides, (cards or ["80"])[-1])
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough; what is left must not be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _estimate(overrides: list[str], card: str) -> None:
    from longtag.memory.estimate.card import card_bytes
    from longtag.memory.estimate.composed import compose_subject
    from longtag.memory.estimate.count import count_standing
    from longtag.memory.estimate.estimate import estimate
    from longtag.memory.estimate.longest import longest
    from longtag.memory.estimate.plan import planned
    from longtag.memory.estimate.tables import show_categories, show_layers, show_levers

    room = card_bytes(card)
    subject, presets = compose_subject(CONF, overrides)
    subject, plan = planned(subject, room)
    standing = count_standing(subject)
    ours = estimate(subject, standing)
    print(
        f"one training step of {subject.tokens:,} tokens x {subject.batch_size}, {subject.num_layers} blocks, "
        f"{subject.precision} on {'a GPU' if subject.device_type == 'cuda' else 'the CPU'}"
    )
    if plan is not None:
        print(f"memory  auto: {plan.describe()}")
    show_categories(ours)
    show_layers(ours.layers)
    print(f"longest sequence in {room / 2**30:.4g} GiB with these options: about ", end="", flush=True)
    print(f"{longest(subject, standing, room, ours):,} tokens")

    def rows() -> Iterator:
        for name, levers in presets.items():
            other = replace(subject, levers=levers, levers_of_blocks=None)
            yield name, ours if other == subject else estimate(other, standing)
        if plan is not None:
            yield "auto", ours

    show_levers(rows(), room)


if __name__ == "__main__":
    main(sys.argv[1:])
