import pytest
import torch

from longtag.model.position import sinusoidal, waves

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 100, 1000, 1_000_003])
def test_waves_are_exact_to_float32_at_every_position(num_tokens):
    cos, sin = waves(num_tokens, 3, CPU)
    assert cos.shape == sin.shape == (num_tokens, 3)
    frequencies = 10_000.0 ** (-torch.arange(3, dtype=torch.float64) / 3)
    angles = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequencies
    assert (cos - angles.cos()).abs().max() < 3e-7
    assert (sin - angles.sin()).abs().max() < 3e-7


@pytest.mark.parametrize("d_model", [1, 6, 7])
def test_sinusoidal_vectors_alternate_sine_and_cosine_for_even_and_odd_widths(d_model):
    table = sinusoidal(50, d_model, CPU)
    assert table.shape == (50, d_model)
    pairs = (d_model + 1) // 2
    for feature in range(d_model):
        angles = torch.arange(50, dtype=torch.float64) * 10_000.0 ** (-(feature // 2) / pairs)
        expected = angles.cos() if feature % 2 else angles.sin()
        torch.testing.assert_close(table[:, feature], expected.float())
