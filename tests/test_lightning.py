"""A rule in Lightning's loop trains the weights that `localearn.fit` trains."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import localearn
from localearn.data import from_arrays
from localearn.errors import UserError
from localearn.tasks import MultiLabel
from tests import lightning_worker

pytestmark = [
    pytest.mark.slow,  # Lightning takes seconds to import
    pytest.mark.filterwarnings("ignore"),  # of Lightning's own, on loaders without workers and on its dependencies
]
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def lit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning

        from localearn import lightning as ours
    return lightning, ours


@pytest.fixture(scope="module")
def digits():
    return localearn.load("digits", train_size=90)


def rule_on(data, name, **options):
    torch.manual_seed(1)
    net = localearn.MLP(data.input_shape, data.task.outputs, widths=(8, 6), dropout=0.1)
    return getattr(localearn, name)(net.for_task(data.task), **options)


CASES = [
    ("MonoForward", {}, {}),
    ("ForwardForward", {}, {}),  # it draws wrong labels, and its schedule cools down
    ("Backprop", {}, {"clip_norm": 0.1}),
    ("Pepita", {"form": "time_local"}, {}),  # two steps a batch
    ("DirectFeedbackAlignment", {}, {"step": "block"}),
    ("CounterCurrent", {}, {}),  # two nets
]


@pytest.mark.parametrize(("name", "options", "learning"), CASES, ids=lambda value: value if type(value) is str else "")
def test_the_weights_are_those_of_fit(lit, digits, name, options, learning):
    lightning, ours = lit
    data = digits
    shape = getattr(localearn, name).input_shape_for(data, "dense")
    assert shape == data.input_shape
    by_fit = rule_on(data, name, **options)
    record = by_fit.fit(
        data, epochs=3, batch_size=32, seed=5, restore_best=False, patience=None, device="cpu", **learning
    )
    by_lightning = rule_on(data, name, **options)
    trainer = lightning.Trainer(max_epochs=3, **QUIET)
    module = ours.RuleModule(by_lightning, seed=5, **learning)
    trainer.fit(module, ours.RuleDataModule(data, batch_size=32, seed=5))
    for key, tensor in by_fit.state_dict().items():
        assert torch.equal(tensor, by_lightning.state_dict()[key]), key
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert logged["val_accuracy"] == pytest.approx(record.history[-1]["val_accuracy"])
    assert logged["train_loss"] == pytest.approx(record.history[-1]["train_loss"], rel=1e-4)
    (tested,) = trainer.test(module, verbose=False, dataloaders=ours.RuleDataModule(data).test_dataloader())
    assert tested["test_accuracy"] == pytest.approx(record.metric("accuracy"))


def test_it_goes_on_from_lightnings_checkpoint(lit, digits, tmp_path):
    lightning, ours = lit

    def train(epochs, **options):
        rule = rule_on(digits, "MonoForward")
        trainer = lightning.Trainer(max_epochs=epochs, **QUIET)
        trainer.fit(ours.RuleModule(rule), ours.RuleDataModule(digits, batch_size=32), **options)
        return trainer, rule

    train(2)[0].save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = train(4, ckpt_path=tmp_path / "half.ckpt")
    _, whole = train(4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_ordinary_loaders_and_lightnings_early_stopping(lit, digits):
    lightning, ours = lit
    x, y = torch.randn(64, 5), torch.randint(2, (64,))
    loaders = [DataLoader(TensorDataset(x, y), batch_size=16) for _ in range(2)]
    torch.manual_seed(0)
    rule = localearn.MonoForward(localearn.MLP((5,), 2, widths=(4,)))
    stop = lightning.pytorch.callbacks.EarlyStopping("val_accuracy", mode="max", patience=1, min_delta=1.0)
    trainer = lightning.Trainer(max_epochs=9, callbacks=[stop], **QUIET)
    module = ours.RuleModule(rule)
    trainer.fit(module, *loaders)
    assert trainer.current_epoch == 2
    outputs = trainer.predict(module, dataloaders=loaders[0])
    assert torch.cat(outputs).shape == (64, 2)


def test_a_task_whose_metric_needs_all_rows_is_measured_as_by_fit(lit):
    lightning, ours = lit
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    data = from_arrays(x, (x[:, :2] > 0).float(), task=MultiLabel())
    by_fit = rule_on(data, "MonoForward")
    record = by_fit.fit(data, epochs=1, batch_size=32, restore_best=False, device="cpu")
    trainer = lightning.Trainer(max_epochs=1, **QUIET)
    trainer.fit(
        ours.RuleModule(rule_on(data, "MonoForward")), ours.RuleDataModule(data, batch_size=32, eval_batch_size=7)
    )
    for name in ("auc", "log_loss"):
        assert float(trainer.callback_metrics[f"val_{name}"]) == pytest.approx(record.metric(name, "val"), rel=1e-5)


def test_what_lightnings_loop_cannot_do_is_told(lit, digits):
    _, ours = lit
    with pytest.raises(UserError, match="learns in phases"):
        ours.RuleModule(rule_on(digits, "MonoForward", schedule="greedy"))
    with pytest.raises(UserError, match=r"no option 'epochs'.*others are Lightning's"):
        ours.RuleModule(rule_on(digits, "MonoForward"), epochs=3)


@pytest.fixture(scope="module")
def by_ranks(tmp_path_factory):
    """Train every case on two ranks, by Lightning and by fit, in a process each; return where they saved it."""
    folder = tmp_path_factory.mktemp("ranks")
    for how in ("lightning", "fit"):
        program = [
            str(Path(__file__).with_name("lightning_worker.py")),
            how,
            ",".join(lightning_worker.CASES),
            str(folder),
        ]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        root = str(Path(localearn.__file__).parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        ended = subprocess.run(
            [*torchrun, *program], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("name", lightning_worker.CASES)
def test_two_devices_train_the_weights_of_two_ranks(by_ranks, name):
    ours, theirs = (torch.load(by_ranks / f"{how}-{name}.pt", weights_only=True) for how in ("lightning", "fit"))
    for key, tensor in theirs["state"].items():
        assert torch.equal(tensor, ours["state"][key]), key
    for metric in ("val_accuracy", "val_loss", "train_loss"):
        assert ours["metrics"][metric] == pytest.approx(theirs["metrics"][metric], rel=1e-5)


# Those that draw nothing and have no batch normalisation, under which a bias has no gradient but rounding.
@pytest.mark.parametrize("name", ["Backprop", "Pepita"])
def test_two_devices_train_the_weights_of_one_process_to_rounding(by_ranks, name):
    ours = torch.load(by_ranks / f"lightning-{name}.pt", weights_only=True)
    alone, _ = lightning_worker.by_fit(name, "none")
    for key, tensor in alone.state_dict().items():
        torch.testing.assert_close(ours["state"][key], tensor, rtol=1e-4, atol=1e-5, msg=key)


def test_other_ways_to_use_several_devices_are_told(lit, digits):
    _, ours = lit
    from lightning.pytorch.strategies import DDPStrategy

    module = ours.RuleModule(rule_on(digits, "Backprop"))
    module.trainer = other = SimpleNamespace(world_size=2, strategy=SimpleNamespace())
    with pytest.raises(UserError, match=r"by DDP, not by SimpleNamespace; use strategy='ddp', or devices=1"):
        module.setup("fit")
    module = ours.RuleModule(rule_on(digits, "Backprop"), step="block")
    other.strategy = DDPStrategy()
    module.trainer = other
    with pytest.raises(UserError, match="step=block drops each; use step=all"):
        module.setup("fit")


def test_without_lightning_the_line_that_installs_it_is_said(lit, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.delitem(sys.modules, "localearn.lightning")
    with pytest.raises(UserError, match=r'pip install "localearn\[lightning\]"'):
        __import__("localearn.lightning")


def test_an_error_in_training_ends_the_fit_of_the_rule(lit, digits):
    lightning, ours = lit

    class Failing(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("a callback's")

    module, ended = ours.RuleModule(rule_on(digits, "Backprop")), []
    ending = module.on_fit_end
    module.on_fit_end = lambda: [ended.append(True), ending()]
    with pytest.raises(RuntimeError, match="a callback's"):
        lightning.Trainer(max_epochs=1, callbacks=[Failing()], **QUIET).fit(module, ours.RuleDataModule(digits))
    assert ended == [True]
