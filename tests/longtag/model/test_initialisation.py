import pytest
import torch
from torch import nn

from longtag.model.block import Block
from longtag.model.embedding import TokenEmbedding
from longtag.model.encoder import Encoder
from longtag.model.initialisation import AVERAGING_GAIN, initialise
from sparse_attention import patterns


def build(num_layers: int) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(num_layers=num_layers, d_model=64, num_heads=4, d_ff=256, dropout=0.0)
    initialise(nn.Identity(), encoder, nn.Linear(64, 5))
    return encoder


def test_attention_over_eight_keys_starts_with_the_variance_of_its_inputs():
    block = build(1).blocks[0]
    assert isinstance(block, Block)
    out = block.attention(torch.randn(1, 2000, 64), patterns.random(2000, keys_per_query=8))
    assert out.var().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("num_layers", "variance"), [(1, 1), (2, 1), (8, 1 / 256)])
def test_scores_start_with_unit_variance_and_branches_with_their_share(num_layers, variance):
    block = build(num_layers).blocks[-1]
    assert isinstance(block, Block)
    x = torch.randn(1, 400, 64)
    for part in block.attention.qkv(x).chunk(3, dim=-1):
        assert part.var().item() == pytest.approx(1, rel=0.15)
    assert block.attention.output(x).var().item() == pytest.approx(AVERAGING_GAIN**2 * variance, rel=0.15)
    assert block.feed_forward(x).pow(2).mean().item() == pytest.approx(variance, rel=0.25)


def test_gradients_reach_the_first_layer_of_a_deep_post_norm_encoder(dense):
    encoder = build(24)
    x = torch.randn(1, 64, 64, requires_grad=True)
    out = encoder(x, dense(64))
    upstream = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, x, upstream)
    assert 0.5 < grad.norm() / upstream.norm() < 2


@pytest.mark.parametrize("embedding", [TokenEmbedding(4000, 64), nn.Linear(32, 64)])
def test_embeddings_and_logits_start_with_unit_variance(embedding):
    head = nn.Linear(64, 50)
    initialise(embedding, build(1), head)
    inputs = torch.arange(4000) if isinstance(embedding, nn.Embedding) else torch.randn(4000, 32)
    assert embedding(inputs).var().item() == pytest.approx(1, rel=0.1)
    assert head(torch.randn(4000, 64)).var().item() == pytest.approx(1, rel=0.1)
