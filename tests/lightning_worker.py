"""Train a rule on each of the ranks that torchrun started, by Lightning or by `localearn.fit`; rank 0 saves it.

torchrun --nproc-per-node=2 tests/lightning_worker.py lightning|fit RULE FILE
"""

import sys
import warnings
from typing import Any

import torch

import localearn

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # options of the rule, the net and `fit`
    "MonoForward": ({}, {"norm": "batch"}, {}),
    "ForwardForward": ({}, {"dropout": 0.1}, {}),  # it draws wrong labels
    "Backprop": ({}, {}, {"clip_norm": 0.1}),
    "Pepita": ({"form": "time_local"}, {}, {}),  # two steps a batch
}
EPOCHS, ROWS, SEED = 2, 30, 5  # 30 rows of two ranks, and a last batch of another size


def data_of() -> Any:
    """Return a few of the digits."""
    return localearn.load("digits", train_size=100)


def rule_of(name: str, data: Any) -> Any:
    """Return the rule on its net, the same in every process."""
    options, of_net, _ = CASES[name]
    torch.manual_seed(1)
    net = localearn.MLP(data.input_shape, data.task.outputs, widths=(8, 6), **of_net)
    return getattr(localearn, name)(net.for_task(data.task), **options)


def by_fit(name: str, parallel: str) -> tuple[Any, dict[str, float]]:
    """Return the rule that `localearn.fit` trained, and the metrics of its last epoch."""
    data = data_of()
    rule = rule_of(name, data)
    record = rule.fit(
        data, epochs=EPOCHS, batch_size=ROWS, seed=SEED, restore_best=False, patience=None, device="cpu",
        parallel=parallel, **CASES[name][2],
    )  # fmt: skip
    return rule, record.history[-1]


def by_lightning(name: str) -> tuple[Any, dict[str, float]]:
    """Return the rule that Lightning trained, and what it logged."""
    warnings.simplefilter("ignore")
    import lightning
    from lightning.pytorch.strategies import DDPStrategy

    from localearn.lightning import RuleDataModule, RuleModule

    data = data_of()
    rule = rule_of(name, data)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo"),
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(RuleModule(rule, seed=SEED, **CASES[name][2]), RuleDataModule(data, batch_size=ROWS, seed=SEED))
    return rule, {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    import os

    how, rules, folder = sys.argv[1:]
    for name in rules.split(","):
        rule, metrics = by_lightning(name) if how == "lightning" else by_fit(name, "data")
        if os.environ["RANK"] == "0":
            torch.save({"state": rule.state_dict(), "metrics": metrics}, f"{folder}/{how}-{name}.pt")
