import copy

import torch
from torch import nn

from longtag.memory.standing import Standing

CPU = torch.device("cpu")


def stepped(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 10)).sum().backward()
    optimizer.step()
    return optimizer


def test_weights_gradients_and_the_states_of_adamw_are_counted():
    model = nn.Linear(10, 20, bias=False)
    model.register_buffer("table", torch.zeros(5))
    standing = Standing(model, [torch.optim.AdamW(model.parameters())], CPU)
    assert (standing.weights, standing.gradients(), standing.optimizer_states()) == (820, 0, 0)
    optimizer = stepped(model)
    standing = Standing(model, [optimizer], CPU)
    # Two means, and the number of the step.
    assert (standing.gradients(), standing.optimizer_states()) == (800, 2 * 800 + 4)
    optimizer.zero_grad()
    assert standing.gradients() == 0


def test_a_weight_that_two_modules_share_counts_once():
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    model[1].weight = model[0].weight
    assert Standing(model, [], CPU).weights == 400


def test_a_copy_beside_the_model_counts_once_more():
    model = nn.Linear(10, 10, bias=False)
    assert Standing(model, [], CPU, [copy.deepcopy(model)]).weights == 800


def test_what_lies_on_another_device_does_not_count():
    model = nn.Linear(10, 20, bias=False)
    standing = Standing(model, [stepped(model)], torch.device("meta"))
    assert (standing.weights, standing.optimizer_states()) == (0, 0)


def test_states_that_appear_later_are_counted():
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, lr=0.1)
    standing = Standing(model, [optimizer], CPU)
    model[0](torch.randn(2, 10)).sum().backward()
    optimizer.step()
    assert standing.optimizer_states() == 400
    model(torch.randn(2, 10)).sum().backward()
    optimizer.step()
    assert standing.optimizer_states() == 800


def test_a_state_of_several_tensors_counts_them_all():
    model = nn.Linear(10, 20, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.state[model.weight] = {"exp_avg": (torch.zeros(200, dtype=torch.uint8), torch.zeros(2)), "step": 3}
    assert Standing(model, [optimizer], CPU).optimizer_states() == 208


def test_of_a_quantized_state_the_bytes_that_it_keeps_count():
    model = nn.Linear(10, 20, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.state[model.weight] = {"exp_avg": Quantized(torch.zeros(200, dtype=torch.uint8))}
    assert Standing(model, [optimizer], CPU).optimizer_states() == 200


class Quantized(torch.Tensor):
    """Seen as float32, kept in uint8."""

    codes: torch.Tensor

    @staticmethod
    def __new__(cls, codes: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes: torch.Tensor) -> None:
        self.codes = codes

    def __tensor_flatten__(self):
        return ["codes"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Quantized(inner["codes"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError
