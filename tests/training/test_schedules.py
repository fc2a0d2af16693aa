import pytest
import torch

from localearn import UserError
from localearn.training.schedules import CoolDown


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
