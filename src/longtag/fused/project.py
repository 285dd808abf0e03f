"""A linear layer whose input is read by something else as well: both gradients of it meet inside of a product."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from longtag.fused.dtypes import product_dtype


def project_beside(x: Tensor, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """`linear(x)`, a matrix of its own, and x for whoever else reads it: (n, m) -> (n, k) and (n, m).

    Autograd would add the two gradients of x in a pass of its own; here the product of one starts from the other,
    which must therefore be nobody else's. What is kept is x as it is, and no copy in the dtype of the product.
    """
    return _ProjectBeside.apply(x, linear.weight, linear.bias, product_dtype(x))  # pyright: ignore[reportReturnType]


class _ProjectBeside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, product: torch.dtype) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.product = product
        projected = torch.addmm(bias.to(product), x.to(product), weight.to(product).mT)
        return projected, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_projected: Tensor, d_x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        _, weight_learns, bias_learns, _ = ctx.needs_input_grad
        d_weight = (d_projected.mT @ x.to(ctx.product)).to(weight.dtype) if weight_learns else None
        d_bias = d_projected.sum(0, dtype=torch.float32).to(weight.dtype) if bias_learns else None
        weight = weight.to(ctx.product)
        if d_x.dtype == ctx.product and d_x.is_contiguous():
            d_x.addmm_(d_projected, weight)
        else:
            d_x = d_x + d_projected @ weight
        return d_x, d_weight, d_bias, None
