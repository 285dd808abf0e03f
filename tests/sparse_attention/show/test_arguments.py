"""Arguments of the command become options of patterns, and what cannot is explained."""

from pathlib import Path

import pytest
import torch

from sparse_attention import patterns
from sparse_attention.show.arguments import build, options_of, pattern_names


def test_every_pattern_can_be_named() -> None:
    assert set(pattern_names()) >= {"random", "window", "dilated", "longformer", "bigbird", "union", "file", "knn"}
    assert "Pattern" not in pattern_names()
    for name in pattern_names():
        assert "num_tokens" not in options_of(name)


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("window", {"window": "3", "causal": "true"}, patterns.window(50, window=3, causal=True)),
        ("window", {"window": "3", "causal": "False"}, patterns.window(50, window=3)),
        ("dilated", {"window": "1", "dilations": "[1, 5]"}, patterns.dilated(50, window=1, dilations=[1, 5])),
        ("documents", {"lengths": "20"}, patterns.documents(50, lengths=20)),
        ("documents", {"lengths": "[20,30]"}, patterns.documents(50, lengths=[20, 30])),
        ("bigbird", {"block_size": "16", "num_heads": "null"}, patterns.bigbird(50, block_size=16)),
        ("window", {"window": "2", "layout": "index_list"}, patterns.window(50, window=2, layout="index_list")),
        (
            "union",
            {"patterns": "[window(window=1, causal=true), dense(causal=true)]"},
            patterns.dense(50, causal=True),
        ),
        (
            "documents",
            {"lengths": "25", "within": "union(patterns=[window(window=0)])"},
            patterns.window(50, window=0),
        ),
    ],
)
def test_values_are_read_as_the_signature_says(name: str, texts: dict[str, str], expected) -> None:
    layout = build(name, texts)(50)
    assert torch.equal(layout.dense_mask(), expected.dense_mask())
    if "layout" in texts:
        assert type(layout) is type(expected)


def test_a_path_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a table, (1).txt"
    with pytest.raises(ValueError, match=r"a table, \(1\).txt: expected a file that ends in"):
        build("file", {"path": str(path)})(3)


@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("windw", {}, "pattern=windw: there is no such pattern; did you mean window? patterns: bigbird, dense"),
        ("Pattern", {}, "pattern=Pattern: there is no such pattern"),
        (
            "window",
            {"windo": "3"},
            "windo: the pattern window has no such option; did you mean window? its options: win",
        ),
        ("window", {"zzz": "3"}, "zzz: the pattern window has no such option; its options: window, causal"),
        ("window", {}, "window: the pattern window needs it; give window=..., a whole number"),
        ("window", {"window": "3.5"}, "window=3.5: expected a whole number"),
        ("window", {"window": "true"}, "window=true: expected a whole number"),
        ("window", {"window": ""}, "window=: expected a whole number"),
        ("window", {"window": "(("}, "window=((: expected a whole number"),
        ("window", {"window": "__import__('os')"}, "window=__import__('os'): expected a whole number"),
        ("window", {"window": "3", "causal": "1"}, "causal=1: expected true or false"),
        ("window", {"window": "3", "layout": "dense"}, "layout=dense: expected one of auto, index_list, block_sparse"),
        ("dilated", {"window": "3", "dilations": "4"}, "dilations=4: expected a list, each item a whole number"),
        ("dilated", {"window": "3", "dilations": "[4, x]"}, "dilations=x: expected a whole number"),
        ("bigbird", {"num_heads": "x"}, "num_heads=x: expected a whole number or null"),
        ("documents", {"lengths": "x"}, "lengths=x: expected a whole number or a list, each item a whole number"),
        ("union", {"patterns": "[3]"}, "patterns=3: expected a pattern, such as window(window=4)"),
        ("union", {"patterns": "[window(3)]"}, "patterns=window(3): expected a pattern with named options"),
        ("union", {"patterns": "[windw(window=3)]"}, "pattern=windw: there is no such pattern; did you mean window?"),
        ("union", {"patterns": "[window]"}, "window: the pattern window needs it; give window=..., a whole number"),
        ("union", {"patterns": "window"}, "patterns=window: expected a list, each item a pattern"),
    ],
)
def test_a_mistake_is_explained(name: str, texts: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        build(name, texts)
    assert str(caught.value).startswith(message)
