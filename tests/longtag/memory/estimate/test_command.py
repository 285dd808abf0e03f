"""`python -m longtag.memory.estimate`, as it is called."""

import pytest

from longtag.memory.estimate.__main__ import main
from longtag.memory.estimate.card import CARDS, card_bytes

OPTIONS = ("data=synthetic", "tokens=3000", "model.num_layers=4", "model.d_model=64", "pattern=window", "memory=lean")


def test_it_says_what_is_needed_by_category_by_layer_and_by_lever(capsys):
    main([*OPTIONS, "card=0.2", "trainer.accelerator=gpu"])
    said = capsys.readouterr().out
    assert said.startswith("one training step of 3,000 tokens x 1, 4 blocks, bf16-mixed on a GPU\n")
    for row in ("| optimizer states |", "| sum ", "| embedding ", "| head and loss ", "| fast: no lever ", "| lean "):
        assert row in said
    assert "longest sequence in 0.2 GiB with these options: about " in said
    assert "wait in host memory" in said


def test_on_a_cpu_there_are_neither_workspaces_nor_tensors_on_a_host(capsys):
    main([*OPTIONS, "trainer.accelerator=cpu", "memory=fast"])
    said = capsys.readouterr().out
    assert "32-true on the CPU" in said
    assert "workspaces" not in said


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("card=gtx9999", "error: card=gtx9999: expected a number of GiB, or one of h200, h100"),
        ("card=-3", "error: card=-3: expected"),
        ("tokens=0", "error: tokens=0: expected the length of a crop"),
        ("model.num_heads=3", "num_heads=3"),
        ("memory=slim", "error: memory=slim: no such memory"),
    ],
)
def test_what_cannot_be_used_is_named(capsys, argument, message):
    with pytest.raises(SystemExit) as left:
        main([*OPTIONS[:-1], argument])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_card_is_a_size_or_a_name():
    assert card_bytes("80") == 80 * 2**30
    assert card_bytes("H100") == round(CARDS["h100"] * 2**30)
