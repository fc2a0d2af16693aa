"""Channels last is another order in memory, and the same learning to rounding."""

import functools

import pytest
import torch

import localearn
from localearn import cli
from localearn.trainers import Descent
from localearn.training import Settings
from localearn.training.distributed import Ranks
from localearn.training.experiment import build
from localearn.training.layout import apply_memory_format
from localearn.training.runtime import autocast
from localearn.training.step import Update
from tests.marks import rules_of, slow_but

OPTIMIZERS = {
    "fused": functools.partial(torch.optim.Adam, lr=1e-3, fused=True),
    "plain": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}
NETS = {
    "cnn": ["net=cnn", "net.channels=[4,6]", "net.norm=none"],
    "lenet": ["net=lenet", "net.channels=[4,6,8]", "net.kernel_size=3", "net.hidden=9"],
}


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=100)


def rule(name, net):
    _, trainer, _ = build(
        *cli.compose([f"algo={name}", "dataset=digits", "dataset.train_size=100", *NETS[net], "recipe=maps"])
    )
    return trainer.double()  # in which rounding cannot be taken for a fault


def stepped(trainer, data, optimizer, steps=3):
    """Take steps as the loop does, in each phase; return what the rule holds then."""
    settings = Settings()
    for phase in trainer.phases():
        if not isinstance(phase, Descent):
            continue
        trainer.train()
        phase.freeze()
        update = Update(
            trainer,
            phase,
            optimizer(phase.optimizer_groups()),
            settings,
            autocast(torch.device("cpu"), "fp32"),
            Ranks(),
        )
        for step in range(steps):
            torch.manual_seed(step)
            batch = next(data.batches("train", 20, generator=torch.Generator().manual_seed(step)))
            batch = localearn.Batch(batch.x.double(), batch.y)
            with torch.no_grad():
                batch = localearn.Batch(phase.input(batch.x), batch.y)
            update(batch)
    return trainer.state_dict()


@pytest.mark.parametrize("optimizer", slow_but(OPTIMIZERS, "fused"))
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", rules_of("cnn"))
def test_every_rule_learns_the_same(name, net, optimizer, digits):
    if net == "lenet" and name in ("forward_gradient", "likelihood_ratio"):
        pytest.skip("its margin of zeros ties maxima, and which of them noise follows is the layout's to choose")
    plain, last = rule(name, net), rule(name, net)
    apply_memory_format(last, "channels_last", "fp32")
    first = last.net.get_parameter("blocks.0.op.weight")
    assert first.is_contiguous(memory_format=torch.channels_last)
    expected, found = (stepped(one, digits, OPTIMIZERS[optimizer]) for one in (plain, last))
    assert first.is_contiguous(memory_format=torch.channels_last)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=f"{key} differs")


def test_a_gradient_that_lies_otherwise_is_stepped_as_it_is_meant(digits):
    """A fused optimizer goes through memory and looks at no stride."""

    class Given(localearn.Trainer):
        def gradients(self, batch):
            for p in self.phases()[0].parameters:
                p.grad = torch.arange(p.numel(), dtype=p.dtype).view(p.shape)
            return {"loss": torch.zeros(())}

    def trained(memory_format):
        torch.manual_seed(0)
        trainer = Given(localearn.CNN((1, 8, 8), 10, channels=(3, 4)))
        apply_memory_format(trainer, memory_format, "fp32")
        phase = trainer.descent("all", trainer.net.parameters())
        optim = torch.optim.SGD(phase.parameters, lr=1e-3, fused=True)
        update = Update(trainer, phase, optim, Settings(), autocast(torch.device("cpu"), "fp32"), Ranks())
        update(next(digits.batches("train", 4)))
        return trainer.state_dict()

    contiguous, last = trained("contiguous"), trained("channels_last")
    assert all(torch.equal(last[name], value) for name, value in contiguous.items())


def test_a_fit_gives_the_net_back_as_it_was(digits, tmp_path):
    seen = []

    class Watching(localearn.Backprop):
        def gradients(self, batch):
            seen.append(self.net.get_parameter("blocks.1.op.weight").stride())
            return super().gradients(batch)

    net = localearn.CNN((1, 8, 8), 10, channels=(3, 4))
    before = {name: tensor.stride() for name, tensor in net.state_dict().items()}
    Watching(net).fit(digits, epochs=1, out=tmp_path / "run")
    assert set(seen) == {(27, 1, 9, 3)}  # auto, on a CPU
    assert {name: tensor.stride() for name, tensor in net.state_dict().items()} == before
    seen.clear()
    Watching(net).fit(digits, epochs=1, memory_format="contiguous")
    assert set(seen) == {before["blocks.1.op.weight"]}


def test_a_checkpoint_is_of_no_format(digits, tmp_path):
    """A run that began in one goes on in the other."""

    class Mortal(localearn.Backprop):
        steps_left: int | None = None

        def gradients(self, batch):
            if self.steps_left == 0:
                raise ZeroDivisionError("in the third epoch")
            self.steps_left = self.steps_left and self.steps_left - 1
            return super().gradients(batch)

    def trainer():
        torch.manual_seed(0)
        return Mortal(localearn.CNN((1, 8, 8), 10, channels=(3, 4)))

    whole = trainer()
    whole.fit(digits, epochs=4, batch_size=20, memory_format="contiguous")
    part = trainer()
    part.steps_left = 12
    with pytest.raises(ZeroDivisionError):
        part.fit(digits, epochs=4, batch_size=20, memory_format="channels_last", out=tmp_path / "run")
    rest = trainer()
    record = rest.fit(digits, epochs=4, batch_size=20, memory_format="contiguous", out=tmp_path / "run", resume=True)
    assert record.epochs == 4
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("rule", "last"), [(localearn.Pepita, True), (localearn.LikelihoodRatio, False)])
def test_auto_spares_what_becomes_slower(rule, last):
    trainer = rule(localearn.CNN((1, 8, 8), 10, channels=(3, 4), norm="none"))
    apply_memory_format(trainer, "auto", "fp32")
    weight = trainer.net.get_parameter("blocks.1.op.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == last


def test_nets_without_maps_and_other_devices_stay():
    mlp = localearn.Backprop(localearn.MLP((4,), 3, widths=(5,)))
    strides = [p.stride() for p in mlp.parameters()]
    apply_memory_format(mlp, "channels_last", "fp32")
    assert [p.stride() for p in mlp.parameters()] == strides
    meta = localearn.Backprop(localearn.CNN((1, 8, 8), 10, channels=(3, 4))).to("meta")
    apply_memory_format(meta, "auto", "bf16")
    assert meta.net.get_parameter("blocks.1.op.weight").is_contiguous()
