import functools
from typing import Any, cast

import pytest
import torch

from localearn.errors import UserError
from localearn.training.optimization import check_optimization

ADAM = functools.partial(torch.optim.Adam, lr=0.1)


@pytest.mark.parametrize(
    ("optim", "schedule", "told"),
    [
        (functools.partial(torch.optim.Adam, lr=-1), None, "optim: Invalid learning rate: -1"),
        (lambda parameters: parameters, None, "optim returns a list, not a torch.optim.Optimizer"),
        (lambda: None, None, "optim: "),
        (ADAM, lambda optimizer: optimizer, "schedule returns a Adam, not a torch.optim.lr_scheduler"),
        (ADAM, functools.partial(torch.optim.lr_scheduler.StepLR, step_size=0), "schedule: "),
        (ADAM, functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=cast(Any, 5)), "schedule: "),
    ],
)
def test_an_optimizer_or_a_schedule_that_cannot_work_is_told(optim, schedule, told):
    with pytest.raises(UserError) as error:
        check_optimization(optim, schedule, torch.device("cpu"))
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", [None, torch.optim.lr_scheduler.ReduceLROnPlateau])
def test_those_that_work_pass_without_a_warning(name, schedule):
    optim = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    check_optimization(functools.partial(optim, lr=0.1, fused=True), schedule, torch.device("cpu"))


@pytest.mark.parametrize("steps", [1, 5])
def test_a_schedule_that_ends_before_the_epochs_do_is_told(steps):
    schedule = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=steps)
    check_optimization(ADAM, schedule, torch.device("cpu"), steps)
    with pytest.raises(UserError, match=rf"^schedule: Tried to step .* in epoch {steps + 1} of {steps + 3}$"):
        check_optimization(ADAM, schedule, torch.device("cpu"), steps + 3)
