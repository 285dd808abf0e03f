"""Near positions and strides into the distance, after the Sparse Transformer."""

from ..layouts import Layout
from ..rules import Choice, Steps, lay_out
from .options import check_at_least


def strided(
    num_tokens: int,
    *,
    stride: int,
    reach: int | None = None,
    causal: bool = False,
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """Each query sees the `stride` positions that end with its own, and every stride-th position before it; both sides
    alike unless `causal`.

    The strided pattern of the Sparse Transformer (Child, Gray, Radford and Sutskever 2019, arXiv:1904.10509, section
    4.2), its two parts merged in one head; the paper is causal. It takes a stride near the square root of N, since a
    query sees up to stride + N / stride keys, on both sides together twice as many.

    The sum of N - |s| edges over the different steps s: up to 2 stride - 1 + 2 floor(reach / stride) for each query, or
    stride + floor(reach / stride) when causal.

    reach: positions that the strides go at most, which makes the cost linear in N; None for the whole sequence, as in
           the paper.
    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens, stride or reach below 1, or an unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens, stride=stride)
    if reach is not None:
        check_at_least(1, reach=reach)
    near = min(stride, num_tokens) - 1
    far = min(num_tokens - 1, num_tokens if reach is None else reach) // stride * stride
    ends = (1, 1) if causal else (near + 1, far + 1)
    rule = Steps((range(-near, ends[0]), range(-far, ends[1], stride)))
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)
