import dataclasses

import pytest
from hydra.utils import instantiate

from longtag.errors import UsageError
from longtag.memory import Levers
from longtag.model.block import Block

from .conftest import small_model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "some"}, "checkpoint=some: expected one of none, blocks, selective"),
        ({"residual": "float16"}, "residual=float16: expected one of float32, bfloat16"),
        ({"checkpoint": "blocks", "checkpoint_every": 0}, "checkpoint_every=0: expected a number of blocks from 1 up"),
        ({"tile_tokens": 0}, "tile_tokens=0: expected a number of tokens from 1 up, or null"),
        ({"tile_heads": -1}, "tile_heads=-1: expected a number of heads from 1 up, or null"),
        ({"checkpoint_every": 2}, "checkpoint_every=2: .*memory.checkpoint=none; give memory.checkpoint=blocks"),
        ({"checkpoint": "selective", "checkpoint_every": 2}, "checkpoint_every=2: .*memory.checkpoint=selective"),
        ({"checkpoint": "selective", "tile_heads": 2}, "tile_heads=2: .* give memory.checkpoint=blocks or none"),
        ({"offload": True}, "offload=true: .*memory.checkpoint=none.*; give memory.checkpoint=blocks or selective"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Levers(**options)


def test_levers_cannot_be_changed_behind_the_model():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Levers().tile_tokens = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_without_levers_a_model_keeps_everything():
    assert small_model().levers == Levers() == Levers(checkpoint="none", tile_tokens=None, tile_heads=None)


def test_levers_reach_every_block():
    levers = Levers(checkpoint="blocks", checkpoint_every=2, tile_tokens=5, tile_heads=2)
    model = small_model(levers)
    for block in model.encoder.blocks:
        assert isinstance(block, Block)
        assert block.levers is block.attention.levers is model.encoder.levers is levers


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("fast", Levers(residual="bfloat16")),
        ("balanced", Levers(checkpoint="blocks", tile_tokens=65536, residual="bfloat16")),
        ("lean", Levers(checkpoint="blocks", tile_tokens=20480, tile_heads=3, offload=True, residual="bfloat16")),
    ],
)
def test_presets_are_these_levers(composed, preset, expected):
    config, _ = composed(f"memory={preset}")
    assert instantiate(config.memory) == expected
