"""Draw the pictures of docs/patterns.md again: `python docs/patterns/draw.py`."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from sparse_attention import IndexList, Layout, patterns
from sparse_attention.pictures.figure import draw_patterns, save
from sparse_attention.pictures.heads import head_groups

N = 64


def hairpin() -> Layout:
    """A file in which each position of a folded strand sees itself, its neighbours and the one it is paired with."""
    position = np.arange(N, dtype=np.int32)
    paired = np.where(np.abs(2 * position - (N - 1)) > 8, N - 1 - position, -1)
    near = position[:, None] + np.arange(-1, 2, dtype=np.int32)
    table = np.column_stack((np.where(near < N, near, -1), paired))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "hairpin.npy", table.astype(np.int32))
        return patterns.file(N, path=Path(folder) / "hairpin.npy")


def topics() -> Layout:
    """The nearest keys among tokens of three topics, which take turns of 8 tokens."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(3, 16, generator=generator)[torch.arange(N) // 8 % 3]
    q, k = 4 * centre + 0.3 * torch.randn(2, 1, 1, N, 16, generator=generator)
    resolved = patterns.knn(N, num_nearest=6, chunk=16).resolve(q, k)
    assert isinstance(resolved, IndexList)
    return IndexList(resolved.indices[0])


EXAMPLES: dict[str, Layout] = {
    "bigbird": patterns.bigbird(256, block_size=16, num_window=3, num_global=2, num_random=2, seed=0),
    "dense": patterns.dense(N),
    "dilated": patterns.dilated(N, window=2, dilations=[1, 6]),
    "documents": patterns.documents(
        N, lengths=[20, 12, 32], within=partial(patterns.longformer, window=3, num_global=1)
    ),
    "file": hairpin(),
    "fixed": patterns.fixed(N, stride=8, num_summary=2),
    "hubs": patterns.hubs(N, num_hubs=4, window=2),
    "knn": topics(),
    "local": patterns.local(N, size=12),
    "logsparse": patterns.logsparse(N, window=2),
    "longformer": patterns.longformer(N, window=4, num_global=2),
    "per_head": patterns.per_head(
        N, patterns=[partial(patterns.dilated, window=3, dilations=[gap]) for gap in (1, 4)], heads=[2, 2]
    ),
    "random": patterns.random(N, keys_per_query=4, seed=0),
    "strided": patterns.strided(N, stride=8),
    "union": patterns.union(
        N,
        patterns=[
            partial(patterns.window, window=2),
            partial(patterns.random, keys_per_query=2, seed=0),
            partial(patterns.hubs, num_hubs=1, window=0),
        ],
    ),
    "window": patterns.window(N, window=4),
}


def main() -> None:
    for name, layout in EXAMPLES.items():
        groups = head_groups(layout)
        figure = Figure(figsize=(2.9 * len(groups) + 0.3, 3.2), layout="constrained")
        draw_patterns(figure, groups)
        save(figure, Path(__file__).with_name(f"{name}.png"), dpi=100)


if __name__ == "__main__":
    main()
