"""From what a source gives, token ids or vectors, to the model's width."""

import torch.nn.functional as F
from torch import Tensor, nn

from longtag.data.source import TokenIds, Vectors
from longtag.errors import UsageError


class TokenEmbedding(nn.Embedding):
    """A table of vectors that are multiplied by sqrt(d_model) when looked up, as in Vaswani et al. (2017), section 3.4.

    Adam moves each weight by about the learning rate a step, whatever its size. With the factor the table holds small
    numbers that stand for vectors of unit variance, and a token's vector is learnt sqrt(d_model) times faster.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Ids (batch, N) -> (batch, N, d_model)."""
        return F.embedding(input, self.weight * self.embedding_dim**0.5)


def build_embedding(inputs: TokenIds | Vectors, d_model: int, project_inputs: bool = True) -> nn.Module:
    """The module that maps ids (batch, N) or vectors (batch, N, width) to (batch, N, d_model).

    Ids are looked up in a table. Vectors are projected, or passed on as they are when `project_inputs` is False.
    Raises UsageError where the inputs cannot do without a projection.
    """
    if project_inputs:
        if isinstance(inputs, TokenIds):
            return TokenEmbedding(inputs.vocabulary_size, d_model)
        return nn.Linear(inputs.width, d_model)
    if isinstance(inputs, TokenIds):
        raise UsageError(
            "project_inputs=False: only vectors can enter the model as they are, and this source gives token ids; "
            "leave project_inputs=True"
        )
    if inputs.width != d_model:
        raise UsageError(
            f"project_inputs=False: the source gives vectors of width {inputs.width}, but d_model={d_model}; "
            f"set d_model={inputs.width} or project_inputs=True"
        )
    return nn.Identity()
