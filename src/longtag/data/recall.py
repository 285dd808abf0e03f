"""Associative recall at known distances: how far does a pattern really carry information?

In each sequence every key is stored in one place, with a value drawn for it. Queries name a key, and the label of a
query is the value that was stored with it. All other tokens are noise and have no label. Values are drawn independently
of everything else, so what is right at a distance has been carried over that distance, and what never arrived is
guessed: 1 / values are right.

This is the multi-query associative recall of Arora et al. (2023), "Zoology", arXiv:2312.04927, for models that look
both ways. A key and its value are one token here, because binding two would ask for one more layer: reach is measured,
not composition.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from longtag.data.source import IGNORED, Block, Crop, Split, TokenIds
from longtag.data.splits import SPLITS
from longtag.errors import UsageError


class RecallSource:
    """Sequences that are made as they are read: a fresh one for every training crop, a fixed set for the others.

    Token ids are, in this order: the noise tokens, a query for each key, and each key with each of the values.

    Args:
        length: tokens in a sequence.
        pairs: keys, each stored once with one value.
        values: what can be stored: the classes, all equally likely.
        copies: tokens in a row that hold a stored pair, so that a pattern with gaps can meet one of them.
        queries: queries for each key; one that falls on a token that is taken is left out.
        noise: different noise tokens.
        min_distance: tokens from a query to the nearest copy of its pair, at least.
        max_distance: the same, at most; None for half of the length. Between the two, the logarithm of the distance is
            uniform. A pair lies where one side has so much room: anywhere up to half of the length, towards the ends
            beyond it.
        sequences: how many there are in validation, and in test.
        seed: of the sequences of validation and test; those of training follow from the seed of the crops.

    Raises UsageError for numbers that are out of range or leave no room.
    """

    def __init__(
        self,
        *,
        length: int,
        pairs: int = 2,
        values: int = 4,
        copies: int = 16,
        queries: int = 32,
        noise: int = 4,
        min_distance: int = 4,
        max_distance: int | None = None,
        sequences: int = 32,
        seed: int = 0,
    ) -> None:
        farthest = length // 2 if max_distance is None else max_distance
        _check_ranges(
            length=(length, 1),
            pairs=(pairs, 1),
            values=(values, 2),
            copies=(copies, 1),
            queries=(queries, 1),
            noise=(noise, 1),
            min_distance=(min_distance, 1),
            max_distance=(farthest, min_distance),
            sequences=(sequences, 1),
            seed=(seed, 0),
        )
        self._length, self._pairs, self._num_values, self._copies = length, pairs, values, copies
        self._queries, self._noise, self._sequences, self._seed = queries, noise, sequences, seed
        self._nearest, self._farthest = min_distance, farthest
        if self._num_starts < (pairs - 1) * copies + 1:
            raise UsageError(
                f"length={length}: no room for pairs={pairs} of copies={copies} tokens with max_distance={farthest} "
                "tokens beside each; give more tokens=..., or less of the others"
            )
        self.inputs = TokenIds(noise + pairs + pairs * values)
        self.class_names = tuple(f"value {value}" for value in range(values))
        self.description = (
            f"recall, {pairs} pairs and {queries} queries for each, {min_distance:,} to {farthest:,} tokens apart; "
            f"{values} values; {sequences} sequences in validation and in test"
        )

    def blocks(self, split: Split) -> Sequence[Block]:
        """A block for each sequence of validation or test; one for training, which stands for ever new sequences."""
        first = SPLITS.index(split) * self._sequences
        return [Block(first + i, 0, self._length) for i in range(1 if split == "train" else self._sequences)]

    def read(self, block: Block, start: int, length: int, rng: np.random.Generator | None = None) -> Crop:
        """Ids (length,) int64, labels (length,) int64 and distances (length,) int32, 0 where there is no label.

        With `rng`, a sequence drawn from it; without, the one that belongs to the block. A query whose pair does not
        lie whole in the stretch that is read has no label.
        """
        if rng is None:
            # Never a generator of the crops: those are seeded with two numbers, to which numpy adds zeros.
            rng, value_of = np.random.default_rng([self._seed, block.record, 1]), self._balanced_values(block.record)
        else:
            value_of = rng.integers(self._num_values, size=self._pairs)
        ids, labels = rng.integers(self._noise, size=self._length), np.full(self._length, IGNORED)
        distances = np.zeros(self._length, dtype=np.int32)

        firsts, keys = self._draw_pairs(rng)
        values = value_of[keys]
        stored = (firsts[:, None] + np.arange(self._copies)).ravel()
        ids[stored] = np.repeat(self._noise + self._pairs + keys * self._num_values + values, self._copies)

        asked, positions, apart = self._draw_queries(rng, firsts, taken=stored)
        ids[positions] = self._noise + keys[asked]
        known = (firsts[asked] >= start) & (firsts[asked] + self._copies <= start + length)
        asked, positions, apart = asked[known], positions[known], apart[known]
        labels[positions], distances[positions] = values[asked], apart
        part = slice(start, start + length)
        return torch.from_numpy(ids[part]), torch.from_numpy(labels[part]), torch.from_numpy(distances[part])

    def class_counts(self, split: Split) -> NDArray[np.int64]:
        """Labelled tokens of each class, int64 (num_classes,); all alike in training, which has no end."""
        if split == "train":
            return np.full(self._num_values, self._pairs * self._queries)
        labels = torch.cat([self.read(block, 0, block.size)[1] for block in self.blocks(split)])
        return torch.bincount(labels[labels != IGNORED], minlength=self._num_values).numpy()

    @property
    def _num_starts(self) -> int:
        """Places for the first copy of a pair."""
        at_start, skipped = self._places
        return max(self._length - self._copies + 1 - skipped, 0) if at_start > 0 else 0

    @property
    def _places(self) -> tuple[int, int]:
        """How many places have `farthest` tokens behind the pair, and how many after these have them on no side."""
        with_room_behind = self._length - self._copies - self._farthest + 1
        return with_room_behind, max(self._farthest - with_room_behind, 0)

    def _balanced_values(self, record: int) -> NDArray:
        """The value of each key in a fixed sequence, (pairs,).

        Over as many sequences as there are values, each key has each value once: sequences are few, and with values
        drawn for each of them, a guess that never changes would be right clearly more or less often than 1 / values.
        """
        rng = np.random.default_rng([self._seed, record // self._num_values, 2])
        return (rng.integers(self._num_values, size=self._pairs) + record) % self._num_values

    def _draw_pairs(self, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """First token and key of each pair, (pairs,) each; no two pairs overlap."""
        spread = (self._copies - 1) * np.arange(self._pairs)
        firsts = np.sort(rng.choice(self._num_starts - spread[-1], self._pairs, replace=False)) + spread
        with_room_behind, skipped = self._places
        firsts[firsts >= with_room_behind] += skipped
        return firsts, rng.permutation(self._pairs)

    def _draw_queries(
        self, rng: np.random.Generator, firsts: NDArray, taken: NDArray
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Which pair each query asks for, where it stands, and how far away the pair is: (num_queries,) each."""
        asked = np.repeat(np.arange(self._pairs), self._queries)
        logarithms = rng.uniform(np.log(self._nearest), np.log(self._farthest + 1), size=asked.size)
        apart = np.exp(logarithms).astype(np.int64).clip(self._nearest, self._farthest)
        before, behind = firsts[asked] - apart, firsts[asked] + self._copies - 1 + apart
        stands_before = (rng.random(asked.size) < 0.5) & (before >= 0) | (behind >= self._length)
        positions = np.where(stands_before, before, behind)
        # Of several queries for one token the first stays, and the pairs take turns to be first.
        turns = np.argsort(rng.random(asked.size))
        _, first_of_each = np.unique(positions[turns], return_index=True)
        kept = turns[first_of_each]
        kept = kept[~np.isin(positions[kept], taken)]
        return asked[kept], positions[kept], apart[kept]


def _check_ranges(**options: tuple[int, int]) -> None:
    for name, (value, minimum) in options.items():
        if value < minimum:
            raise UsageError(f"{name}={value}: must be {minimum} or more")
