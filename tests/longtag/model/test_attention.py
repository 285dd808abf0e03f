import pytest
import torch

import longtag.model.attention
from longtag.errors import UsageError
from longtag.model.attention import SparseSelfAttention
from longtag.model.rotary import rotation


@pytest.fixture
def received(monkeypatch):
    """The fused q, k and v that the operator was called with."""
    calls = []
    operator = longtag.model.attention.sparse_self_attention

    def recording(qkv, *args, **kwargs):
        calls.append(qkv)
        return operator(qkv, *args, **kwargs)

    monkeypatch.setattr(longtag.model.attention, "sparse_self_attention", recording)
    return calls


@pytest.mark.parametrize("turned", [False, True])
def test_q_k_and_v_reach_the_operator_as_views_into_the_projection(received, dense, turned):
    attention = SparseSelfAttention(d_model=32, num_heads=2)
    projections = []
    attention.qkv.register_forward_hook(lambda module, args, output: projections.append(output))
    attention(torch.randn(3, 5, 32), dense(5), rotation(5, 16, torch.device("cpu")) if turned else None)

    (projection,), (qkv,) = projections, received
    for position, part in enumerate(part.transpose(1, 2) for part in qkv.unbind(2)):
        assert part.shape == (3, 2, 5, 16)
        assert part.stride() == (5 * 96, 16, 96, 1)
        assert part.untyped_storage().data_ptr() == projection.untyped_storage().data_ptr()
        assert part.storage_offset() == 32 * position


@pytest.mark.parametrize("turned", [False, True])
def test_the_gradients_of_q_k_and_v_are_joined_by_one_copy(dense, turned):
    attention = SparseSelfAttention(d_model=32, num_heads=2)
    out = attention(torch.randn(2, 5, 32), dense(5), rotation(5, 16, torch.device("cpu")) if turned else None)
    names, nodes = set(), [out.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    assert "UnbindBackward0" in names
    assert not names & {"SelectBackward0", "SliceBackward0", "AsStridedBackward0", "torch::autograd::CopySlices"}


def test_attention_over_all_keys_is_torchs_multi_head_attention(dense):
    torch.manual_seed(0)
    ours, theirs = SparseSelfAttention(d_model=32, num_heads=4), torch.nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.in_proj_bias.data.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(ours(x, dense(7)), theirs(x, x, x)[0])


@pytest.mark.parametrize(
    ("d_model", "num_heads", "nearest"),
    [(64, 5, "4 or 8"), (768, 7, "6 or 8"), (48, 100, "48"), (64, 0, "1"), (64, -2, "1")],
)
def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_that_do(d_model, num_heads, nearest):
    with pytest.raises(UsageError, match=f"num_heads={num_heads} .*d_model={d_model}.* num_heads={nearest}$"):
        SparseSelfAttention(d_model=d_model, num_heads=num_heads)
