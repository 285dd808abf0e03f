import numpy as np
import pytest

from longtag.data.fasta import COMPLEMENT, N
from longtag.data.tokens import kmer_ids, vocabulary_size


def slow_ids(codes: np.ndarray, k: int) -> list[int]:
    ids = []
    for centre in range(len(codes)):
        positions = range(centre - (k - 1) // 2, centre + k // 2 + 1)
        bases = [int(codes[position]) if 0 <= position < len(codes) else N for position in positions]
        ids.append(4**k if N in bases else sum(base * 4 ** (k - 1 - place) for place, base in enumerate(bases)))
    return ids


@pytest.mark.parametrize("k", range(1, 9))
@pytest.mark.parametrize("length", [1, 3, 50])
def test_ids_are_those_of_a_plain_loop(k: int, length: int):
    codes = np.random.default_rng(10 * k + length).integers(0, 5, length, dtype=np.uint8)
    ids = kmer_ids(codes, k)
    assert ids.dtype == np.int64
    assert ids.tolist() == slow_ids(codes, k)
    assert ids.max() < vocabulary_size(k)


def test_single_nucleotides_are_their_own_ids():
    codes = np.array([0, 1, 2, 3, 4], dtype=np.uint8)
    assert kmer_ids(codes, 1).tolist() == [0, 1, 2, 3, 4]
    assert vocabulary_size(1) == 5


def test_every_kmer_has_an_id_of_its_own():
    codes = np.random.default_rng(3).integers(0, 4, 5000, dtype=np.uint8)
    ids = kmer_ids(codes, 3)
    kmers = {tuple(codes[i - 1 : i + 2].tolist()) for i in range(1, len(codes) - 1)}
    assert len(kmers) == 64
    assert sorted(set(ids.tolist())) == list(range(65))


def test_with_odd_k_the_other_strand_has_the_complementary_kmers_in_reverse():
    codes = np.random.default_rng(4).integers(0, 4, 200, dtype=np.uint8)
    forward, backward = kmer_ids(codes, 3), kmer_ids(COMPLEMENT[codes[::-1]], 3)[::-1]
    digits = np.stack([forward[1:-1] // 16, forward[1:-1] // 4 % 4, forward[1:-1] % 4])
    assert np.array_equal(backward[1:-1], (3 - digits[2]) * 16 + (3 - digits[1]) * 4 + (3 - digits[0]))
