"""AdamW in few bits, held against torch's in float32 over the same gradients."""

import copy
import io
import sys

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from longtag.errors import UsageError
from longtag.optim import Optimization
from longtag.optim.adamw import AdamW
from longtag.optim.low_precision import LowPrecisionAdamW, LowPrecisionAdamWInBackward, Update
from longtag.optim.rounding import joined
from longtag.optim.states import States, code_table

OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
KINDS = [
    ("float32", "nearest"),
    ("bfloat16", "nearest"),
    ("8bit", "nearest"),
    ("float32", "stochastic"),
    ("bfloat16", "stochastic"),
    ("8bit", "compensated"),
]
IDS = ["-".join(kind) for kind in KINDS]


@pytest.fixture(autouse=True)
def _torchao_for_8_bits(request: pytest.FixtureRequest) -> None:
    if "8bit" in request.node.name:
        pytest.importorskip("torchao", reason="the extra lowbit is not installed")


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    """A matrix that 8 bits take, a bias that they do not; both exact in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(shape, generator=generator).mul(0.1).bfloat16() for shape in ((32, 256), (32,)))
    return [nn.Parameter(value.to(dtype)) for value in values]


def groups(parameters: list[nn.Parameter]) -> list[dict]:
    matrix, bias = parameters
    return [{"params": [matrix], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]


def take_steps(optimizer, parameters, steps: range, lr: float | None = None) -> None:
    """Gradients that point one way in the mean, exact in bfloat16, the same for the same step."""
    for step in steps:
        generator = torch.Generator().manual_seed(7)
        drifts = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
        generator.manual_seed(100 + step)
        for parameter, drift in zip(parameters, drifts, strict=True):
            gradient = drift + 2 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.bfloat16().to(parameter.dtype)
        for group in optimizer.param_groups:
            group["lr"] = lr or group["lr"]
        optimizer.step()


def low_precision(parameters, states: States = "float32", update: Update = "nearest") -> LowPrecisionAdamW:
    return LowPrecisionAdamW(groups(parameters), **OPTIONS, states=states, update=update)


def moved(optimizer: Optimizer, lr: float = 1e-4) -> torch.Tensor:
    """How far 200 steps move the matrix, with what compensation holds of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    start = parameters[0].detach().float().clone()
    take_steps(optimizer, parameters, range(200), lr)
    matrix, state = parameters[0].detach(), optimizer.state[parameters[0]]
    return (joined(matrix, state["cut_off"]) if "cut_off" in state else matrix.float()) - start


def by_torch() -> AdamW:
    return AdamW(groups(weights(torch.float32)), **OPTIONS)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_all_in_float32_it_takes_the_steps_of_torch():
    assert distance(moved(low_precision(weights(torch.float32))), moved(by_torch())) < 1e-6


def test_compensated_weights_in_bfloat16_are_as_exact_as_weights_in_float32():
    compensated = low_precision(weights(torch.bfloat16), update="compensated")
    assert distance(moved(compensated), moved(by_torch())) < 1e-6


def test_small_steps_come_to_little_to_the_nearest_and_are_right_in_the_mean_stochastically():
    expected = moved(by_torch(), lr=1e-5)
    share = {}
    updates: tuple[Update, ...] = ("nearest", "stochastic")
    for update in updates:
        found = moved(low_precision(weights(torch.bfloat16), update=update), lr=1e-5)
        share[update] = ((found * expected).sum() / expected.square().sum()).item()
    assert share["nearest"] < 0.1
    assert share["stochastic"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("states", "allowed"), [("bfloat16", 0.003), ("8bit", 0.02)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fewer_bits_of_state_hardly_change_the_way(states, allowed, dtype):
    optimizer = low_precision(weights(dtype), states, "nearest" if dtype == torch.float32 else "compensated")
    assert distance(moved(optimizer), moved(by_torch())) < allowed


def test_a_mean_of_squares_in_bfloat16_falls_however_slowly_it_should():
    parameters = weights(torch.float32)
    optimizer = LowPrecisionAdamW(groups(parameters), lr=0.0, betas=(0.9, 0.999), eps=1e-8, states="bfloat16")
    for gradient in (1.0, *[0.0] * 700):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    squares = optimizer.state[parameters[0]]["exp_avg_sq"].float()
    assert squares.mean().item() == pytest.approx(0.001 * 0.999**700, rel=0.01)


@pytest.mark.parametrize(
    ("states", "update", "expected"),
    [
        ("float32", "nearest", 8.0),
        ("bfloat16", "nearest", 4.0),
        ("8bit", "nearest", 2.03125),
        ("float32", "stochastic", 8.0),
        ("bfloat16", "compensated", 6.0),
        ("8bit", "compensated", 4.03125),
    ],
)
def test_states_have_the_bytes_a_parameter_that_are_promised(states, update, expected):
    parameter = nn.Parameter(torch.zeros(64, 256, dtype=torch.bfloat16))
    optimizer = LowPrecisionAdamW([{"params": [parameter]}], **OPTIONS, states=states, update=update)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = [
        part for kept in optimizer.state[parameter].values() for part in (kept if isinstance(kept, tuple) else [kept])
    ]
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors if isinstance(tensor, torch.Tensor))
    assert held / parameter.numel() == expected


@pytest.mark.parametrize("states", ["8bit"])
def test_small_and_odd_weights_keep_float32(states):
    parameters = [nn.Parameter(torch.zeros(4095)), nn.Parameter(torch.zeros(4097)), nn.Parameter(torch.zeros(4096))]
    optimizer = LowPrecisionAdamW([{"params": parameters}], **OPTIONS, states=states)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [isinstance(optimizer.state[parameter]["exp_avg"], tuple) for parameter in parameters] == [
        False,
        False,
        True,
    ]


def saved_and_loaded(state_dict: dict) -> dict:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


@pytest.mark.parametrize(("states", "update"), KINDS, ids=IDS)
def test_a_saved_state_goes_on_to_the_bit(states, update):
    dtype = torch.float32 if update == "nearest" else torch.bfloat16
    straight, halves = weights(dtype), weights(dtype)
    take_steps(low_precision(straight, states, update), straight, range(6))
    first = low_precision(halves, states, update)
    take_steps(first, halves, range(3))
    second = low_precision(halves, states, update)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    torch.manual_seed(99)  # the draws are its own
    take_steps(second, halves, range(3, 6))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(halves, straight, strict=True))


@pytest.mark.parametrize("after", ["torch", "float32", "8bit"])
@pytest.mark.parametrize("before", ["torch", "bfloat16", "8bit"])
def test_a_run_may_go_on_with_states_of_another_kind(before, after):
    def make(kind, parameters):
        return AdamW(groups(parameters), **OPTIONS) if kind == "torch" else low_precision(parameters, kind)

    straight, changed = weights(torch.float32), weights(torch.float32)
    start = straight[0].detach().clone()
    take_steps(AdamW(groups(straight), **OPTIONS), straight, range(60))
    first = make(before, changed)
    take_steps(first, changed, range(30))
    second = make(after, changed)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    take_steps(second, changed, range(30, 60))
    assert distance(changed[0] - start, straight[0] - start) < 0.02
    assert second.state[changed[0]]["step"] == 60


@pytest.mark.parametrize(("states", "update"), KINDS, ids=IDS)
def test_steps_in_backward_are_those_at_the_end(states, update):
    def trained(in_backward: bool) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        dtype = torch.float32 if update == "nearest" else torch.bfloat16
        model.to(dtype)
        optimization = Optimization(learning_rate=0.01, states=states, update=update, in_backward=in_backward)
        optimizer = optimization.configure(model, max_steps=3)["optimizer"]
        assert isinstance(optimizer, AdamW | LowPrecisionAdamW)
        assert isinstance(optimizer, LowPrecisionAdamWInBackward) == (in_backward and (states, update) != KINDS[0])
        x = torch.randn(8, 64, dtype=dtype)

        def closure():
            optimizer.zero_grad()
            model(x).square().mean().backward()

        for _ in range(3):
            optimizer.step(closure)
        return model

    for ours, theirs in zip(trained(True).parameters(), trained(False).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_in_bfloat16_have_states_in_float32_unless_others_are_asked_for():
    model = nn.Linear(4, 4, dtype=torch.bfloat16)
    optimizer = Optimization().configure(model, max_steps=2)["optimizer"]
    model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].dtype == torch.float32


def test_a_parameter_without_a_gradient_is_left_alone():
    parameters = weights(torch.float32)
    before = copy.deepcopy(parameters)
    low_precision(parameters, "bfloat16").step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, before, strict=True))


def test_another_update_of_weights_in_float32_is_refused():
    with pytest.raises(UsageError, match=r"update=stochastic: rounds weights of bfloat16, not of torch.float32"):
        low_precision(weights(torch.float32), update="stochastic")


def test_weights_in_float64_are_not_stepped_in_float32():
    model = nn.Linear(2, 2, dtype=torch.float64)
    with pytest.raises(UsageError, match=r"states=bfloat16: .* weights of torch.float64; give optim.states=float32"):
        Optimization(states="bfloat16").configure(model, max_steps=2)
    assert isinstance(Optimization().configure(model, max_steps=2)["optimizer"], AdamW)


def test_8_bits_without_torchao_name_the_extra(monkeypatch):
    code_table.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UsageError, match=r"states=8bit: torchao.*-e '.\[lowbit\]'.*optim.states=bfloat16"):
        Optimization(states="8bit")


@pytest.mark.gpu
@pytest.mark.parametrize(("states", "update"), KINDS, ids=IDS)
def test_compiled_on_a_gpu_it_takes_the_steps_of_the_cpu(states, update):
    torch.compiler.reset()  # a run has one kind of states and updates; all are too many for one process
    dtype = torch.float32 if update == "nearest" else torch.bfloat16
    on_cpu, on_gpu = weights(dtype), [nn.Parameter(weight.detach().cuda()) for weight in weights(dtype)]
    start = on_cpu[0].detach().float().clone()
    for parameters in (on_cpu, on_gpu):
        optimizer = low_precision(parameters, states, update)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)
            optimizer.step()
    # The two devices draw different random bits.
    allowed = 0.5 if update == "stochastic" else 0.02
    assert distance(on_gpu[0].detach().float().cpu() - start, on_cpu[0].detach().float() - start) < allowed
