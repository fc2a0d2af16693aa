"""Several processes train as one: the same weights, on gloo and the CPU."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from localearn import registry

WORKER = Path(__file__).with_name("worker.py")
SMALL = ["dataset.train_size=143", "batch_size=20", "epochs=2"]  # the last batch has 3 rows

DATA = {
    **{rule: [f"algo={rule}"] for rule in (
        "backprop", "mono_forward", "direct_feedback_alignment", "feedback_alignment", "sign_symmetry",
        "product_feedback_alignment", "pepita", "cafo")},
    "greedy": ["algo=mono_forward", "algo.schedule=greedy", "algo.input_projection=true"],
    "clipped": ["algo=mono_forward", "clip_norm=0.1"],
    "sgd": ["algo=backprop", "optim=sgd", "optim.lr=0.1", "optim.momentum=0.9"],
    "schedule": ["algo=backprop", "schedule=exponential"],
    "augmented": ["algo=backprop", "dataset.augment=crop_flip"],
    "convolution": ["algo=mono_forward", "net=cnn", "net.channels=[4,6]", "net.norm=none"],
    "uneven": ["algo=mono_forward", "dataset.train_size=147"],  # of whose last 7 rows the ranks have 3 and 4
    "patience": ["algo=backprop", "patience=1", "epochs=30", "optim.lr=0.02"],
    # By sgd, for Adam blows rounding up to whole steps where a gradient is zero, as before a normalisation a bias's is.
    **{f"normalised_{rule}": [f"algo={rule}", "net.norm=batch", "optim=sgd", "optim.lr=0.1"] for rule in (
        "backprop", "pepita")},
    **{f"normalised_maps_{rule}": [f"algo={rule}", "net=cnn", "net.channels=[4,6]", "optim=sgd"] for rule in (
        "mono_forward", "feedback_alignment", "direct_feedback_alignment", "cafo")},
    "local_loss": ["algo=local_loss", "algo.loss=pred", "algo.head=mlp"],
    "scalable_forward_forward": ["algo=scalable_forward_forward", "algo.schedule=greedy"],
    "counter_current": ["algo=counter_current", "optim=sgd", "optim.lr=0.3"],
    "time_local": ["algo=pepita", "algo.form=time_local", "optim=sgd", "optim.lr=0.1"],
    "normalised_stages": ["algo=mono_forward", "algo.schedule=greedy", "net=cnn", "net.channels=[4,6]", "optim=sgd"],
}  # fmt: skip
# Tasks without classes, of which a figure may need all rows at once; {folder} has the archives.
TASKS = {
    "binary": ["dataset=npz", "dataset.path={folder}/binary.npz", "dataset.task=binary"],
    "multilabel": ["dataset=npz", "dataset.path={folder}/multilabel.npz", "dataset.task=multilabel"],
    "states_fed_back": ["algo=state_feedback", "dataset=adding", "dataset.steps=6"],
    "autoencoding": ["dataset.task=autoencoding"],
    "greedy_autoencoding": ["dataset.task=autoencoding", "algo=mono_forward", "algo.schedule=greedy"],
}
CHANCE = {rule: [f"algo={rule}"] for rule in ("forward_forward", "forward_gradient", "likelihood_ratio", "model_free")}
LAYERS = {
    "joint": ["algo=mono_forward"],
    "projection": ["algo=mono_forward", "algo.input_projection=true", "algo.prediction=ff"],
    "forward_forward": ["algo=forward_forward", "algo.prediction=goodness"],
    "normalised": ["algo=mono_forward", "net.norm=batch"],
    "scalable_forward_forward": ["algo=scalable_forward_forward", "net=cnn", "net.channels=[4,6,8]"],
    "by_block": ["algo=mono_forward", "step=block"],
    "bf16": ["algo=mono_forward", "precision=bf16"],
    "sgd": ["algo=mono_forward", "optim=sgd", "optim.lr=0.1", "optim.momentum=0.9", "schedule=exponential"],
    "convolution": ["algo=mono_forward", "net=cnn", "net.channels=[4,6,8]"],
    "local_loss": ["algo=local_loss", "algo.head=auglocal", "net=cnn", "net.channels=[4,6,8]"],
    "patience": ["algo=mono_forward", "patience=1", "epochs=30", "optim.lr=0.02"],
    "model_free": ["algo=model_free"],
}  # fmt: skip
# A prediction's noise is of a row's place among its rank's, so that it chooses no epoch here.
UNCHAINED = ["algo=noprop", "net=noprop_mlp", "net.hidden=8", "net.steps=3", "net.dropout=0", "restore_best=false"]
REFUSED = {
    "greedy": (["algo=mono_forward", "algo.schedule=greedy", "parallel=layers"], "greedy trains one block at a time"),
    "not_local": (["algo=backprop", "parallel=layers"], "Backprop is not local"),
    "readout": (["algo=forward_forward", "parallel=layers"], "readout reads every block"),
    "collaboration": (
        ["algo=forward_forward", "algo.prediction=goodness", "algo.collaboration=all", "parallel=layers"],
        "collaboration=all needs other blocks' goodness"),
    "shared_embedding": (
        ["algo=noprop", "net=noprop_mlp", "net.embedding=learned", "net.hidden=8", "net.steps=2", "parallel=layers"],
        "embeddings that learn do so from every block's loss"),
    "tied": (["algo=local_loss", "algo.head=tied", "parallel=layers"], "head=tied reads the readout's weights"),
    "few_blocks": (["algo=mono_forward", "net.widths=[8]", "parallel=layers"], "2 ranks are more than the net's 1"),
    "indivisible": (["batch_size=21", "parallel=data"], "batch_size=21 cannot be divided over 2 ranks; use 20 or 22"),
    "graph": (["dataset=karate", "net=gcn", "parallel=data"], "karate is one batch that cannot be divided"),
    "graph_layers": (["algo=mono_forward", "dataset=karate", "net=gcn", "parallel=layers"], "karate is one batch"),
    "drifting": (["algo=model_free", "net.drift_rate=0.1", "parallel=data"], "drifts by each rank's own batches"),
    "by_block": (["step=block", "parallel=data"], "parallel=data reduces all gradients at once"),
    "clipped": (["clip_norm=1", "parallel=layers"], "clip_norm needs all gradients at once"),
    "diagnosed": (["diagnose=alignment", "parallel=data"], "diagnose=alignment needs the full net"),
}  # fmt: skip

# Rules that no case above trains on ranks.
LEFT_OUT = {
    "forward_gnn": "a graph is one batch, which cannot be divided",
    "shallow": "it is backprop's readout",
}


def test_every_rule_is_trained_on_ranks_or_left_out_with_the_reason():
    cases = [*DATA.values(), *CHANCE.values(), *TASKS.values(), *LAYERS.values(), UNCHAINED]
    trained = {word.partition("=")[2] for case in cases for word in case if word.startswith("algo=")}
    assert trained | set(LEFT_OUT) == set(registry.rules())
    assert not trained & set(LEFT_OUT)


def worker():
    spec = importlib.util.spec_from_file_location("worker", WORKER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def several(tmp_path_factory, launch):
    """Run all cases on two ranks, once; return what a rank had in the end of a case."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = {}
    random = np.random.RandomState(0)
    x = random.randn(173, 6)
    np.savez(folder / "binary.npz", x=x, y=x[:, 0] + random.randn(173) > 0)
    np.savez(folder / "multilabel.npz", x=x, y=x @ random.randn(6, 13) + random.randn(173, 13) > 0)
    tasks = {name: [word.format(folder=folder) for word in own] for name, own in TASKS.items()}
    for mode, asked in (("data", DATA | CHANCE | tasks), ("layers", LAYERS | {"unchained": UNCHAINED})):
        for name, own in asked.items():
            mlp = [] if any(word.startswith("net=") for word in own) else ["net.widths=[12,10,8]"]
            small = SMALL if "dataset=npz" not in own else SMALL[1:]
            cases[f"{mode}-{name}"] = [*small, *mlp, *own, f"parallel={mode}"]
    cases |= {f"refused-{name}": own for name, (own, _) in REFUSED.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    done = launch(2, str(WORKER), str(folder / "cases.json"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]

    def found(case, rank=0):
        state = torch.load(folder / f"{case}-{rank}.pt", weights_only=True)
        return state, json.loads((folder / f"{case}-{rank}.json").read_text())

    found.cases = cases
    return found


@pytest.fixture(scope="module")
def alone(several):
    """Return what one process has in the end of a case."""

    def trained(case):
        threads = torch.get_num_threads()
        try:
            return worker().run([option for option in several.cases[case] if not option.startswith("parallel=")])
        finally:
            torch.set_num_threads(threads)

    return trained


def furthest(one, other):
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("case", DATA)
def test_rows_shared_out_give_the_weights_of_the_whole_batch(case, several, alone):
    state, record = several(f"data-{case}")
    expected, single = alone(f"data-{case}")
    assert (record["parallel"], record["ranks"], record["status"]) == ("data", 2, "completed")
    assert record["passes"] == single["passes"]
    assert furthest(state, expected) < 2e-5
    for line, other in zip(record["history"], single["history"], strict=True):
        assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert line["val_accuracy"] == pytest.approx(other["val_accuracy"])


@pytest.mark.parametrize("case", TASKS)
def test_every_tasks_metrics_are_those_of_one_process(case, several, alone):
    (state, record), (expected, single) = several(f"data-{case}"), alone(f"data-{case}")
    assert furthest(state, expected) < 2e-5
    assert list(record["metrics"]) == list(single["metrics"])
    for name, figures in single["metrics"].items():
        for split in ("val", "test"):
            assert record["metrics"][name][split] == pytest.approx(figures[split], rel=1e-4), (name, split)


@pytest.mark.parametrize("case", LAYERS)
def test_blocks_shared_out_give_the_bits_of_the_joint_schedule(case, several, alone):
    state, record = several(f"layers-{case}")
    expected, single = alone(f"layers-{case}")
    assert (record["parallel"], record["ranks"]) == ("layers", 2)
    assert [name for name in expected if not torch.equal(state[name], expected[name])] == []
    for line, other in zip(record["history"], single["history"], strict=True):
        assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert line["val_loss"] == pytest.approx(other["val_loss"], rel=1e-5)
    assert record["test_accuracy"] == pytest.approx(single["test_accuracy"])


def test_blocks_that_do_not_learn_from_one_another_have_the_bits_of_one_process(several, alone):
    expected, single = alone("layers-unchained")
    for rank in (0, 1):
        state, record = several("layers-unchained", rank)
        assert [name for name in expected if not torch.equal(state[name], expected[name])] == []
        for line, other in zip(record["history"], single["history"], strict=True):
            assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


@pytest.mark.parametrize("case", ["joint", "unchained"])
def test_blocks_that_do_not_learn_from_one_another_send_nothing(case, several):
    """Of a chain, the first rank sends each batch, and its form once; else there is no message from one to one."""
    batches = 2 * 8  # two epochs
    sent, received = ({"sends": batches + 1}, {"receives": batches + 1}) if case == "joint" else ({}, {})
    for rank, expected in enumerate((sent, received)):
        _, record = several(f"layers-{case}", rank)
        assert record["messages"] == {"sends": 0, "receives": 0} | expected


@pytest.mark.parametrize(
    "case", [*(f"data-{case}" for case in DATA | CHANCE | TASKS), *(f"layers-{case}" for case in LAYERS)]
)
def test_every_rank_ends_with_the_same_weights(case, several):
    (one, first), (other, second) = several(case), several(case, rank=1)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert [line["val_loss"] for line in first["history"]] == [line["val_loss"] for line in second["history"]]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shared_out_is_refused_on_every_rank(case, several):
    for rank in (0, 1):
        _, record = several(f"refused-{case}", rank)
        assert REFUSED[case][1] in record["error"]
