"""How many tiles head and loss take."""

import pytest
import torch
from torch import Tensor, nn

from longtag.loss import TokenLoss
from longtag.memory.tiled_loss import cost_of_tokens, predict


class CountingHead(nn.Linear):
    rows: list[int]

    def forward(self, input: Tensor) -> Tensor:
        self.rows.append(input.shape[0])
        return super().forward(input)


@pytest.mark.parametrize(
    ("width", "num_classes", "tokens", "tile", "rows"),
    [
        (4, 2, 50_000, None, [50_000]),
        (4, 1024, 40_000, None, [13_334, 13_334, 13_332]),
        (1024, 2, 20_000, None, [10_000, 10_000]),
        (4, 2, 50, 20, [17, 17, 16]),
    ],
    ids=["narrow head", "many classes", "wide model", "as asked"],
)
def test_a_tile_holds_so_many_logits_or_features_unless_asked(width, num_classes, tokens, tile, rows):
    head, features = CountingHead(width, num_classes), torch.zeros(1, tokens, width, requires_grad=True)
    labels = torch.zeros(1, tokens, dtype=torch.int64)
    head.rows = []
    cost_of_tokens(head, TokenLoss(), features, labels, tile=tile)
    assert head.rows == rows
    head.rows = []
    predict(head, TokenLoss(), features, labels, tile=tile)
    assert head.rows == rows
