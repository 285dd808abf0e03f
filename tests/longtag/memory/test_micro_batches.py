import pytest
import torch

from longtag.loss import TokenLoss
from longtag.memory.micro_batches import MeanOverStep

NUM_CLASSES = 4
LOSSES = [{}, {"class_weights": [1.0, 0.0, 5.0, 0.5]}, {"focal_gamma": 2.0}, {"label_smoothing": 0.1}]


def batches() -> tuple[torch.Tensor, torch.Tensor]:
    """Three crops of 50 tokens, of which 50, 2 and none have a label."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, 6, generator=generator)
    labels = torch.randint(NUM_CLASSES, (3, 50), generator=generator)
    labels[1, 2:] = -100
    labels[2] = -100
    return x, labels


def model() -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(6, NUM_CLASSES)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
@pytest.mark.parametrize("options", LOSSES)
def test_batches_with_different_numbers_of_labels_have_the_gradient_of_one_batch_of_all(options, order):
    (x, labels), loss = batches(), TokenLoss(**options)
    whole, parts, mean = model(), model(), MeanOverStep()
    loss(whole(x), labels).backward()
    for step in (1, 2):
        parts.zero_grad()
        for number in order:
            cost, weight = loss.cost(parts(x[number]), labels[number]), loss.weight(labels[number])
            mean.add(cost, weight, 50).backward()
        mean.finish(parts.parameters(), lambda weight, reduce_op: weight)
        for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7, msg=f"step {step}")


def test_several_devices_whose_gradients_are_averaged_have_the_gradient_of_one():
    (x, labels), loss, whole = batches(), TokenLoss(), model()
    loss(whole(x[:2]), labels[:2]).backward()
    devices, means = [model(), model()], [MeanOverStep(), MeanOverStep()]
    weights = [loss.weight(labels[device]) for device in range(2)]
    for device in range(2):
        cost = loss.cost(devices[device](x[device]), labels[device])
        means[device].add(cost, weights[device], 50).backward()
    for mine, other in zip(devices[0].parameters(), devices[1].parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        mine.grad = other.grad = (mine.grad + other.grad) / 2
    both = weights[0] + weights[1]
    means[0].finish(devices[0].parameters(), lambda weight, reduce_op: both, num_devices=2)
    for ours, theirs in zip(devices[0].parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_a_step_without_any_label_has_gradients_of_zero():
    (x, labels), loss, net, mean = batches(), TokenLoss(), model(), MeanOverStep()
    mean.add(loss.cost(net(x[2]), labels[2]), loss.weight(labels[2]), 50).backward()
    mean.finish(net.parameters(), lambda weight, reduce_op: weight)
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
