import functools

import pytest
import torch

from longtag.memory import Levers
from longtag.memory.checkpointing import run_checkpointed
from longtag.model.encoder import Encoder
from longtag.model.rotary import rotation
from sparse_attention import patterns

NUM_TOKENS = 40


def encoder_and_inputs(checkpoint_every: int) -> tuple[Encoder, torch.Tensor]:
    """`checkpoint_every` 0 keeps everything."""
    levers = Levers(checkpoint="blocks", checkpoint_every=checkpoint_every) if checkpoint_every else Levers()
    torch.manual_seed(0)
    encoder = Encoder(num_layers=5, d_model=32, num_heads=2, d_ff=64, dropout=0.3, levers=levers)
    return encoder, torch.randn(1, NUM_TOKENS, 32, requires_grad=True)


def loss_and_gradients(checkpoint_every: int) -> list[torch.Tensor]:
    encoder, x = encoder_and_inputs(checkpoint_every)
    torch.manual_seed(1)
    turn = rotation(NUM_TOKENS, 16, torch.device("cpu"))
    loss = encoder(x, patterns.window(NUM_TOKENS, window=2), turn).pow(2)[..., ::3].sum()
    return [loss, *torch.autograd.grad(loss, [x, *encoder.parameters()])]


def bytes_kept(checkpoint_every: int) -> int:
    """Bytes of distinct activations that autograd holds after a forward pass."""
    encoder, x = encoder_and_inputs(checkpoint_every)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    layout = patterns.window(NUM_TOKENS, window=2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(x, layout)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("every", [1, 2, 5, 8])
def test_loss_and_gradients_are_those_without_checkpointing_even_with_dropout(every):
    for ours, expected in zip(loss_and_gradients(every), loss_and_gradients(0), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_the_bytes_kept_for_backward_shrink_to_the_inputs_of_the_groups():
    everything, each_block, two_blocks = bytes_kept(0), bytes_kept(1), bytes_kept(2)
    boundary = NUM_TOKENS * 32 * 4
    assert each_block <= 5 * boundary
    assert two_blocks <= 3 * boundary
    assert everything > 10 * each_block


@pytest.mark.parametrize(("every", "expected_runs"), [(0, 5), (1, 10), (3, 10)])
def test_blocks_run_a_second_time_in_backward_only_when_checkpointed(every, expected_runs):
    runs = []

    def block(x, offset):
        runs.append(offset)
        return (x + offset).sin()

    x = torch.ones(3, requires_grad=True)
    out = run_checkpointed([block] * 5, x, 0.5, every=every)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert runs == [0.5] * expected_runs
    expected = functools.reduce(lambda y, _: (y + 0.5).sin(), range(5), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), x)[0])


def test_nothing_is_recomputed_without_gradients():
    encoder, x = encoder_and_inputs(1)
    layout = patterns.window(NUM_TOKENS, window=2)
    encoder.eval()
    with torch.no_grad():
        out = encoder(x, layout)
    assert out.grad_fn is None
    torch.testing.assert_close(out, encoder(x, layout), rtol=0, atol=0)
