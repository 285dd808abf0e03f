import pytest
import torch
from torch import nn

from longtag.model.block import Block, FeedForward


def torchs_layer_with_the_same_weights(block: Block, norm: str) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.attention.qkv.weight,
            "self_attn.in_proj_bias": block.attention.qkv.bias,
            **{f"self_attn.out_proj.{name}": value for name, value in block.attention.output.state_dict().items()},
            **block.feed_forward.state_dict(),
            **{f"norm1.{name}": value for name, value in block.norm1.state_dict().items()},
            **{f"norm2.{name}": value for name, value in block.norm2.state_dict().items()},
        }
    )
    return layer


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("seed", [0, 1])
def test_outputs_and_gradients_are_those_of_torchs_encoder_layer(dense, norm, seed):
    torch.manual_seed(seed)
    block = Block(d_model=32, num_heads=4, d_ff=48, dropout=0.0, norm=norm)
    for parameter in block.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    layer = torchs_layer_with_the_same_weights(block, norm)
    x, upstream = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    out, expected = block(ours, dense(9)), layer(theirs)
    out.backward(upstream)
    expected.backward(upstream)

    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    pairs = {
        block.attention.qkv.weight: layer.self_attn.in_proj_weight,
        block.attention.qkv.bias: layer.self_attn.in_proj_bias,
        block.attention.output.weight: layer.self_attn.out_proj.weight,
        block.feed_forward.linear1.weight: layer.linear1.weight,
        block.feed_forward.linear2.bias: layer.linear2.bias,
        block.norm1.weight: layer.norm1.weight,
        block.norm2.bias: layer.norm2.bias,
    }
    for our_parameter, their_parameter in pairs.items():
        torch.testing.assert_close(our_parameter.grad, their_parameter.grad, rtol=1e-4, atol=1e-4)


def test_dropout_before_relu_gives_what_dropout_behind_relu_gives():
    torch.manual_seed(0)
    network = FeedForward(d_model=8, d_ff=16, dropout=0.5)
    x = torch.randn(3, 8)
    torch.manual_seed(1)
    out = network(x)
    torch.manual_seed(1)
    expected = network.linear2(nn.functional.dropout(torch.relu(network.linear1(x)), 0.5))
    torch.testing.assert_close(out, expected)


def test_the_feed_forward_network_keeps_its_hidden_tensor_once():
    network = FeedForward(d_model=8, d_ff=4096, dropout=0.0)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.untyped_storage().data_ptr(), tensor), lambda tensor: tensor
    ):
        network(torch.randn(64, 8))
    assert [tensor.shape for tensor in kept.values()].count((64, 4096)) == 1


def test_dropout_changes_both_branches_in_training_and_none_in_evaluation(dense):
    torch.manual_seed(0)
    block = Block(d_model=32, num_heads=1, d_ff=48, dropout=0.5)
    x = torch.randn(1, 4, 32)
    assert not torch.equal(block(x, dense(4)), block(x, dense(4)))
    block.eval()
    torch.testing.assert_close(block(x, dense(4)), block(x, dense(4)), rtol=0, atol=0)
