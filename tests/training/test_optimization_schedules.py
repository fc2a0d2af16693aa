import copy

import pytest
import torch

from localearn import UserError
from localearn.training.optimization import CoolDown, FractionSteps, StepWithDecay


def made() -> tuple[torch.optim.SGD, StepWithDecay]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.5)
    return optimizer, StepWithDecay(optimizer, [2, 3], gamma=0.1, decay_gamma=0.02, decay_epochs=1)


def epoch(optimizer: torch.optim.SGD, schedule: StepWithDecay) -> tuple[float, float]:
    used = optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
    optimizer.step()
    schedule.step()
    return used


def test_the_first_epoch_decays_strongly_and_the_rate_falls_at_its_milestones():
    parts = made()
    used = [epoch(*parts) for _ in range(4)]
    assert [rate for rate, _ in used] == pytest.approx([1, 1, 0.1, 0.01])
    assert [decay for _, decay in used] == pytest.approx([0.5, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_resumed_schedule_goes_on(done):
    one, other = made(), made()
    before = [epoch(*one) for _ in range(done)]
    for part, state in zip(other, [copy.deepcopy(part.state_dict()) for part in one], strict=True):
        part.load_state_dict(state)
    assert [*before, *(epoch(*other) for _ in range(4 - done))] == [epoch(*p) for p in [made()] for _ in range(4)]


def test_no_epoch_of_strong_decay_is_refused():
    with pytest.raises(UserError, match="decay_epochs must be 1 or more"):
        StepWithDecay(made()[0], [2], decay_epochs=0)


def rates(epochs, start=0.5):
    p = torch.nn.Parameter(torch.zeros(1))
    q = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [p]}, {"params": [q], "lr": 10.0}], lr=1.0)
    schedule = CoolDown(optimizer, epochs, start)
    found = []
    for _ in range(epochs):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def test_cool_down_holds_and_then_falls_along_a_line_in_every_group():
    own = [1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [first for first, _ in rates(7, start=3 / 7)] == pytest.approx(own)
    assert [second for _, second in rates(7, start=3 / 7)] == pytest.approx([10 * rate for rate in own])


def test_cool_down_of_any_length_never_reaches_nothing_before_the_end():
    for epochs in range(1, 6):
        assert all(0 < rate <= 1 for rate, _ in rates(epochs))


@pytest.mark.parametrize(("epochs", "start"), [(0, 0.5), (5, 1.0), (5, -0.1)])
def test_cool_down_refuses_what_is_no_schedule(epochs, start):
    with pytest.raises(UserError, match="cool_down"):
        rates(epochs, start)


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [
        (400, [200, 300, 350, 375]),
        (100, [50, 75, 88, 94]),
        (20, [10, 15, 18, 19]),
        (2, [1, 2, 2, 2]),
        (1, [1, 1, 1, 1]),
    ],
)
def test_fractions_of_the_epochs_are_milestones_and_none_is_before_the_first_step(epochs, milestones):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = FractionSteps(optimizer, epochs)
    for done in range(epochs + 1):
        assert optimizer.param_groups[0]["lr"] == 0.25 ** sum(done >= stone for stone in milestones)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 4, "fractions": [0.5, 1]}])
def test_fractions_refuses_what_is_no_schedule(options):
    with pytest.raises(UserError, match="fractions"):
        FractionSteps(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), **options)
