import pytest
import torch

from longtag.data.source import TokenIds, Vectors
from longtag.errors import UsageError
from longtag.model.embedding import build_embedding


def test_token_ids_are_looked_up_in_a_table_and_scaled_by_the_root_of_the_width():
    embedding = build_embedding(TokenIds(11), 16)
    assert isinstance(embedding, torch.nn.Embedding)
    out = embedding(torch.tensor([[3, 10, 3]]))
    torch.testing.assert_close(out, 4 * embedding.weight[[3, 10, 3]].unsqueeze(0))


def test_vectors_are_projected_to_the_width_of_the_model():
    embedding = build_embedding(Vectors(5), 16)
    assert isinstance(embedding, torch.nn.Linear)
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(embedding(x), x @ embedding.weight.T + embedding.bias)


def test_vectors_of_the_models_width_can_enter_as_they_are():
    embedding = build_embedding(Vectors(16), 16, project_inputs=False)
    x = torch.randn(2, 3, 16)
    assert embedding(x) is x
    assert not list(embedding.parameters())


def test_vectors_of_another_width_need_a_projection():
    with pytest.raises(UsageError, match=r"project_inputs=False.*width 12.*d_model=16.*set d_model=12 or"):
        build_embedding(Vectors(12), 16, project_inputs=False)


def test_token_ids_cannot_enter_as_they_are():
    with pytest.raises(UsageError, match=r"project_inputs=False.*token ids"):
        build_embedding(TokenIds(4), 16, project_inputs=False)
