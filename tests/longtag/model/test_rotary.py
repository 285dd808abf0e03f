import pytest
import torch

import longtag.model.rotary
from longtag.model.rotary import Rotation, rotate_queries_and_keys, rotation

CPU = torch.device("cpu")


def turned_by_complex_numbers(part, turn: Rotation):
    half = part.shape[-1] // 2
    turned = torch.complex(part[..., :half], part[..., half:]) * torch.complex(turn.cos, turn.sin)[:, 0, :, half:]
    return torch.cat((turned.real, turned.imag), dim=-1)


def turned(projected, turn: Rotation):
    """`rotate_queries_and_keys` of a copy of (b, n, 3, h, d), in the same shape."""
    matrix = projected.flatten(2).flatten(0, 1) * 1
    return rotate_queries_and_keys(matrix, tuple(projected.shape), turn).view(projected.shape)


@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients_are_those_of_complex_multiplication(seed):
    torch.manual_seed(seed)
    turn = Rotation(*(table.double() for table in rotation(6, 8, CPU)))
    leaf = torch.randn(2, 6, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(leaf)

    out = turned(leaf, turn)
    (grad,) = torch.autograd.grad(out, leaf, upstream)
    q, k, v = leaf.unbind(2)
    expected = torch.stack((turned_by_complex_numbers(q, turn), turned_by_complex_numbers(k, turn), v), dim=2)
    (expected_grad,) = torch.autograd.grad(expected, leaf, upstream)

    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_scores_see_the_distance_of_two_positions_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 16)
    projected = torch.stack((q, k, k)).expand(1, 40, 3, 16)[:, :, :, None]
    q_turned, k_turned, _ = turned(projected, rotation(40, 16, CPU))[0, :, :, 0].unbind(1)
    scores = q_turned @ k_turned.T
    for distance in (-3, 0, 7):
        same = scores.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-4, atol=1e-4)
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1


def test_long_sequences_are_turned_chunk_by_chunk(monkeypatch):
    torch.manual_seed(0)
    turn = rotation(11, 8, CPU)
    projected = torch.randn(2, 11, 3, 1, 8)
    whole = turned(projected, turn)
    monkeypatch.setattr(longtag.model.rotary, "CHUNK_ELEMENTS", 3 * 2 * 2 * 8)
    assert torch.equal(turned(projected, turn), whole)


def test_the_rotation_happens_in_place_and_leaves_the_upstream_gradient_alone():
    matrix = torch.randn(5, 12, requires_grad=True) * 1
    out = rotate_queries_and_keys(matrix, (1, 5, 3, 1, 4), rotation(5, 4, CPU))
    assert out.data_ptr() == matrix.data_ptr()
    upstream = torch.randn_like(out)
    before = upstream.clone()
    out.backward(upstream)
    assert torch.equal(upstream, before)


def test_a_gradient_that_nobody_else_reads_is_turned_in_place():
    matrix, shape, turn = torch.randn(5, 12, requires_grad=True), (1, 5, 3, 1, 4), rotation(5, 4, CPU)
    upstream = torch.randn(5, 12)
    ours = upstream.clone()
    (copied,) = torch.autograd.grad(rotate_queries_and_keys(matrix * 1, shape, turn), matrix, upstream)
    out = rotate_queries_and_keys(matrix * 1, shape, turn, owns_gradient=True)
    (in_place,) = torch.autograd.grad(out, matrix, ours)
    assert torch.equal(in_place, copied)
    assert torch.equal(ours, copied)
    assert not torch.equal(ours, upstream)


def test_a_gradient_with_strides_of_its_own_is_copied_even_so():
    matrix, turn = torch.randn(5, 12, requires_grad=True), rotation(5, 4, CPU)
    out = rotate_queries_and_keys(matrix * 1, (1, 5, 3, 1, 4), turn, owns_gradient=True)
    upstream = torch.ones(()).expand(5, 12)
    (grad,) = torch.autograd.grad(out, matrix, upstream)
    expected = rotate_queries_and_keys(matrix * 1, (1, 5, 3, 1, 4), turn)
    assert torch.equal(grad, torch.autograd.grad(expected, matrix, torch.ones(5, 12))[0])


def test_bfloat16_is_turned_in_float32_and_rounded_once():
    torch.manual_seed(0)
    turn = rotation(64, 8, CPU)
    projected = torch.randn(1, 64, 3, 1, 8, dtype=torch.bfloat16)
    expected = turned_by_complex_numbers(projected[:, :, 0].float(), turn).bfloat16()
    torch.testing.assert_close(turned(projected, turn)[:, :, 0], expected, rtol=0, atol=0)
