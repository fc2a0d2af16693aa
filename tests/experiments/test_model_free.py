"""experiments/model_free, which stands outside the package: systems that answer from a process of their own."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localearn import ModelFree, Physical, UserError
from localearn.data import from_arrays
from localearn.training.callbacks import Callback, Context
from tests.helpers.programs import program
from tests.marks import posix

FOLDER = Path(__file__).parents[2] / "experiments" / "model_free"
MEASURED = 6
# The instrument's own program, but that it leaves out the last value of each answer.
SHORT = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import instrument; whole = instrument.intensity\n"
SHORT += f"instrument.intensity = lambda u, c: whole(u, c)[:, 1:]; instrument.main(['measured={MEASURED}'])"


@pytest.fixture
def remote():
    """Return a system of another process, which ends with the test."""
    made = program("model_free/another_process.py").instrument(MEASURED, seed=0)
    yield made
    made.close()


def trained(system: Any, **options: Any):
    torch.manual_seed(0)
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    rule = ModelFree(Physical(5 + 2, 2, widths=(4,), system=system, timeout_s=60))
    opaque: Any = rule.net.block(0).op.system
    own = [call(opaque) for call in options.pop("callbacks", [])]
    data = from_arrays(x, (x[:, 0] > 0).long())
    return rule.fit(data, epochs=3, batch_size=20, energy=False, progress=False, callbacks=own, **options)


class Failure(Callback):
    """Has the system fail from the second epoch on."""

    def __init__(self, opaque: Any):
        self.opaque = opaque

    def epoch_ended(self, context: Context) -> None:
        if context.position.epoch == 1:
            self.fail()

    def fail(self) -> None:
        raise NotImplementedError


class Dies(Failure):
    told = r"block 1's system \(Remote\) failed: OSError: process \d+ has ended, with status -9; correct it and resume"

    def fail(self) -> None:
        os.kill(self.opaque.system.process.pid, signal.SIGKILL)


class Hangs(Failure):
    told = r"block 1's system \(Remote\) has not answered in 0.3 s; correct it, or raise timeout_s, and resume the run"

    def fail(self) -> None:
        self.opaque.timeout_s = 0.3
        os.kill(self.opaque.system.process.pid, signal.SIGSTOP)


class AnswersShort(Failure):
    told = r"block 1's system \(Remote\) answers rows \(\d+, 7\) with \(\d+, 5\), not \(\d+, 6\)"

    def fail(self) -> None:
        system = self.opaque.system
        system.close()
        system.command = [sys.executable, "-c", SHORT]


@pytest.mark.slow
def test_the_answers_are_the_childs(remote):
    of = program("model_free/instrument.py")
    u = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    expected = of.intensity(u.numpy(), of.transmission(7, MEASURED, seed=0)).astype("f4")
    assert np.array_equal(remote(u), expected) and np.array_equal(remote(u), expected)


@pytest.mark.slow
@pytest.mark.parametrize("failure", [Dies, Hangs, AnswersShort])
@posix
def test_a_child_that_fails_is_told_and_with_another_the_run_goes_on(remote, tmp_path, failure):
    command = remote.command
    whole = trained(remote, out=tmp_path / "whole")
    with pytest.raises(UserError, match=failure.told):
        trained(remote, out=tmp_path / "run", callbacks=[failure])
    if failure is AnswersShort:
        remote.close()
        remote.command = command
    mended = trained(remote, out=tmp_path / "run", resume=True)
    assert mended.status == whole.status == "completed" and len(mended.history) == 3
    for line, other in zip(mended.history, whole.history, strict=True):
        assert (line["train_loss"], line["val_loss"]) == (other["train_loss"], other["val_loss"])
    assert mended.test_loss == whole.test_loss


@pytest.mark.slow
def test_an_answer_of_no_size_is_not_waited_for():
    header = "import sys, numpy as np; sys.stdout.buffer.write(np.array([2, 2**40], '<i8').tobytes())"
    system = program("model_free/another_process.py").Remote(
        [sys.executable, "-c", header + "; sys.stdout.flush(); input()"]
    )
    with pytest.raises(ValueError, match=r"the answer to 2 rows says that it is of shape \(2, 1099511627776\)"):
        system(torch.zeros(2, 3))
    assert system.process is None
