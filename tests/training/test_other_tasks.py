"""Multi-label tasks and autoencoders are learned by every rule that serves them, from Python and the command line."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error, ndcg_score, roc_auc_score

import localearn
from localearn import MLP, Backprop, ForwardForward, Unsupported, UserError, fit, load_net
from localearn.cli import compare as comparing
from localearn.cli import tune as tuning
from localearn.data import from_arrays
from localearn.data.embedded import digits
from localearn.tasks import Autoencoding, MultiLabel, Regression
from localearn.training.early_stopping import monitored
from tests.helpers.studies import sqlite
from tests.marks import slow_but

RULES = {
    "backprop": localearn.Backprop,
    "mono_forward": localearn.MonoForward,
    "mono_forward greedy": lambda net: localearn.MonoForward(net, schedule="greedy"),
    "direct_feedback_alignment": localearn.DirectFeedbackAlignment,
    "feedback_alignment": localearn.FeedbackAlignment,
    "product_feedback_alignment": localearn.ProductFeedbackAlignment,
    "sign_symmetry": localearn.SignSymmetry,
    "pepita": localearn.Pepita,
    "forward_gradient": localearn.ForwardGradient,
    "likelihood_ratio": localearn.LikelihoodRatio,
    "cafo": localearn.CaFo,
}
QUIET = {"device": "cpu", "batch_size": 16}
GENERATOR = np.random.RandomState(0)
X = GENERATOR.randn(300, 8).astype(np.float32)
TAGS = (X @ GENERATOR.randn(8, 12) + GENERATOR.randn(300, 12) > 1).astype(int)
YES = X[:, 0] + X[:, 1] > 0.5
TINY = ("epochs=2", "net.widths=[12,8]", "energy.enabled=false", "progress=false", "batch_size=32")


def trained(data, rule, epochs, lr, **options):
    torch.manual_seed(0)
    net = MLP(data.input_shape, data.task.outputs, widths=(32, 24)).for_task(data.task)
    trainer = rule(net)
    record = fit(trainer, data, epochs=epochs, optim=functools.partial(torch.optim.Adam, lr=lr), **QUIET, **options)
    assert record.status == "completed"
    return trainer, record


@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns_yes_and_no(name):
    _, record = trained(from_arrays(X, YES, task=MultiLabel()), RULES[name], 15, 3e-3)
    assert list(record.metrics) == ["loss", "auc", "log_loss", "accuracy"] and record.judged_by.name == "auc"
    assert (record.metric("auc") or 0) > 0.8


@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns_to_rank_labels_better_than_by_how_often_they_are_true(name):
    data = from_arrays(X, TAGS, task=MultiLabel(k=3))
    _, record = trained(data, RULES[name], 15, 3e-3)
    assert list(record.metrics) == ["loss", "recall@3", "ndcg@3", "log_loss", "auc"]
    (train,), (test,) = (data.batches(split, 1000) for split in ("train", "test"))
    often = train.target.mean(0).expand_as(test.target)
    has = test.target.any(1)
    assert (record.metric("ndcg@3") or 0) > ndcg_score(test.target[has], often[has], k=3) + 0.02
    assert (record.metric("auc") or 0) > 0.6


@pytest.mark.parametrize("criterion", slow_but(["squared", "bce"], "squared"))
@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns_to_reconstruct_better_than_the_mean_image(name, criterion):
    images = 15 * digits()["x_train"][:300]
    data = from_arrays(images, task=Autoencoding(criterion=criterion), normalize="unit")
    _, record = trained(data, RULES[name], 30, 1e-2)
    assert list(record.metrics) == ["loss", "psnr", "mse"] and record.judged_by.name == "psnr"
    (train,), (test,) = (data.batches(split, 1000) for split in ("train", "test"))
    mean = mean_squared_error(test.x.flatten(1), train.x.flatten(1).mean(0).expand(len(test.x), -1)) * 255**2
    assert (record.metric("mse") or math.inf) < mean


def test_the_metrics_are_scikit_learns_of_the_trained_nets_outputs():
    data = from_arrays(X, TAGS, task=MultiLabel(k=3))
    trainer, record = trained(data, Backprop, 3, 1e-3)
    (batch,) = data.batches("test", 1000)
    with torch.no_grad():
        output = trainer.net(batch.x).double()
    assert record.metric("auc") == pytest.approx(roc_auc_score(batch.target, output, average="macro"))
    has = batch.target.any(1)
    assert record.metric("ndcg@3") == pytest.approx(ndcg_score(batch.target[has], output[has], k=3))
    columns = [log_loss(t, o.sigmoid(), labels=[0, 1]) for o, t in zip(output.T, batch.target.T, strict=True)]
    assert record.metric("log_loss") == pytest.approx(np.mean(columns), rel=1e-5)


def test_a_reconstruction_is_judged_in_the_levels_of_the_images():
    images = digits()["x_train"][:200]
    data = from_arrays(images, task=Autoencoding())
    trainer, record = trained(data, Backprop, 3, 1e-3)
    assert isinstance(data.task, Autoencoding)
    (batch,) = data.batches("test", 1000)
    with torch.no_grad():
        seen = data.task.decode(trainer.net(batch.x))
    raw = data.task.decode(batch.target)
    assert set(raw.round().unique().tolist()) <= set(range(17))
    assert record.metric("mse") == pytest.approx(mean_squared_error(raw, seen), rel=1e-5)


def test_the_first_metric_is_what_a_run_is_watched_by_in_its_direction():
    data = from_arrays(X, YES, task=MultiLabel())
    assert monitored(None, data.task) == ("val_auc", "max")
    assert monitored("val_accuracy", data.task) == ("val_accuracy", "max")
    assert monitored(None, Regression(peak=1.0)) == ("val_psnr", "max")
    assert monitored(None, Autoencoding()) == ("val_mse", "min")
    _, record = trained(data, Backprop, 6, 0.05)
    figures = [line["val_auc"] for line in record.history]
    assert record.best_epoch == 1 + figures.index(max(figures))
    with pytest.raises(UserError, match="monitor must be val_auc, val_log_loss, val_accuracy or val_loss"):
        trained(data, Backprop, 1, 0.05, monitor="val_acc")


def test_a_rule_that_needs_wrong_labels_says_so():
    data = from_arrays(X, YES, task=MultiLabel())
    with pytest.raises(Unsupported, match=r"contrasts right labels with wrong ones.*MultiLabel"):
        fit(ForwardForward(MLP(10, 2, widths=(8,))), data, **QUIET)


def test_it_is_trained_in_bfloat16_and_with_a_step_a_block():
    data = from_arrays(X, YES, task=MultiLabel())
    for options in ({"precision": "bf16"}, {"step": "block"}):
        _, record = trained(data, localearn.MonoForward, 8, 3e-3, **options)
        assert (record.metric("auc") or 0) > 0.85


@pytest.fixture
def archives(tmp_path):
    """Write archives of yes and no, of tags and of rows alone into the test's folder."""
    np.savez(tmp_path / "binary.npz", x=X, y=YES)
    np.savez(tmp_path / "tags.npz", x=X, y=TAGS)
    np.savez(tmp_path / "rows.npz", x=X)


COMMANDS = {
    "binary": ("dataset=npz", "dataset.path=binary.npz", "dataset.task=binary"),
    "multilabel": ("dataset=npz", "dataset.path=tags.npz", "dataset.task=multilabel"),
    "ranked": ("dataset=npz", "dataset.path=tags.npz", "dataset.task={_target_:localearn.tasks.MultiLabel,k:4}"),
    "digits": ("dataset=digits", "dataset.train_size=150", "dataset.task=autoencoding"),
    "crossed": ("dataset=digits", "dataset.train_size=150", "dataset.task=autoencoding", "dataset.criterion=bce",
                "dataset.normalize=unit"),
    "rows": ("dataset=npz", "dataset.path=rows.npz", "dataset.task=autoencoding"),
}  # fmt: skip
FIRST = {"binary": "auc", "multilabel": "recall@10", "ranked": "recall@4", "digits": "psnr", "crossed": "psnr",
         "rows": "mse"}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
@pytest.mark.parametrize("algo", ["mono_forward", "pepita"])
def test_a_command_trains_it_resumes_to_the_same_bits_and_its_net_knows_its_task(case, algo, door, read, archives):
    asked = (*TINY, *COMMANDS[case], f"algo={algo}")
    whole = door(*asked, "out=whole")
    assert whole.status == 0, whole.err
    assert f"test {FIRST[case]} " in whole.out and ("%" in whole.out) == (case in ("binary", "multilabel", "ranked"))
    assert door(*asked, "epochs=1", "out=part").status == 0
    ended = door("resume=part", "epochs=2")
    assert ended.status == 0 or algo == "pepita", ended.err  # whose schedule is made for a number of epochs
    if ended.status == 0:
        assert read.timeless(read.history("part")) == read.timeless(read.history("whole"))
        assert read.record("part")["metrics"] == read.record("whole")["metrics"]
    record = read.record("whole")
    assert list(record["metrics"])[1] == FIRST[case]
    task = load_net("whole").task
    assert task.metrics[0].name == FIRST[case] and task.describe()["kind"] in ("MultiLabel", "Autoencoding")


def test_a_progress_line_has_the_first_metric_with_its_own_unit(door, archives):
    for case, shown in (("binary", "  val auc 0."), ("multilabel", "  val recall@10 "), ("digits", "  val psnr ")):
        done = door(*TINY[:3], "progress=true", *COMMANDS[case])
        lines = [line for line in done.out.splitlines() if "epoch 2/2" in line]
        assert len(lines) == 1 and shown in lines[0] and ("%" in lines[0]) == (case == "multilabel")


@pytest.mark.parametrize(("case", "direction"), [("binary", "MAXIMIZE"), ("digits", "MAXIMIZE"), ("rows", "MINIMIZE")])
def test_a_search_goes_by_the_first_metric(case, direction, tmp_path, monkeypatch, capsys, archives):
    import optuna

    monkeypatch.chdir(tmp_path)
    assert tuning.main(["algo=backprop", *TINY[:3], *COMMANDS[case], "trials=2", "out=tuned"]) == 0
    (summary,) = optuna.get_all_study_summaries(sqlite(Path("tuned/study.db")))
    assert summary.direction.name == direction
    told = json.loads(Path("tuned/tune.json").read_text())
    assert told["metric"]["name"] == told["objective"] == FIRST[case]
    best = max if direction == "MAXIMIZE" else min
    figures = [trial["values"][0] for trial in told["trials"]]
    assert told["trials"][told["best"][0]]["values"][0] == best(figures)
    said = capsys.readouterr().out
    assert "%" not in said and {"binary": "AUC", "digits": " dB", "rows": "MSE"}[case] in said


@pytest.mark.parametrize(("case", "said"), [("binary", "AUC"), ("multilabel", "recall@10"), ("digits", "PSNR")])
def test_rules_are_compared_by_the_first_metric(case, said, tmp_path, monkeypatch, archives):
    monkeypatch.chdir(tmp_path)
    options = [*TINY[:3], *COMMANDS[case], "seeds=[0,1]", "warm_up=false", "progress=false", "protocols=[matched]"]
    assert comparing.main(["algos=[backprop,mono_forward]", *options, "out=compared"]) == 0
    report = json.loads(Path("compared/report.json").read_text())
    (group,) = report["groups"]
    for rule in group["rules"]:
        runs = [json.loads((Path("compared") / run["folder"] / "run.json").read_text()) for run in rule["runs"]]
        mean = sum(run["metrics"][FIRST[case]]["test"] for run in runs) / 2
        assert rule["measures"][f"test_{FIRST[case]}"]["values"][0]["mean"] == pytest.approx(mean)
    page = Path("compared/report.md").read_text()
    assert f"test {said}" in page and "ccurac" not in page
    assert (" dB" in page) == (case == "digits") and ("%" in page.replace("95 %", "")) == (case == "multilabel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dataset=digits", "dataset.task=regression"), "task=regression does not fit digits"),
        (("dataset=npz", "dataset.path=tags.npz", "dataset.task=binary"), "tags.npz: y_train has 12 columns"),
        (("dataset=npz", "dataset.path=rows.npz"), "rows.npz lacks x_train, y_train"),
        (("dataset=digits", "dataset.task=autoencoding", "dataset.criterion=bce"), "use normalize=unit"),
        (("dataset=digits", "dataset.task=autoencoder"), "did you mean 'autoencoding'"),
        (("dataset=npz", "dataset.path=binary.npz", "dataset.task=binary", "algo=forward_forward"), "mono_forward"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(options, message, door, archives, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = door(*TINY, *options)
    assert done.status == 2 and message in done.err and len(done.err.strip().splitlines()) <= 3
    assert sorted(tmp_path.iterdir()) == before


def test_the_recipe_for_values_is_that_of_every_task_without_classes(archives, tmp_path, monkeypatch):
    from localearn import cli

    monkeypatch.chdir(tmp_path)
    for case, asked in COMMANDS.items():
        assert cli.compose(["algo=pepita", *asked])[1]["recipe"] == "values", case
    plain = {"digits": ["dataset=digits"], "npz": ["dataset=npz", "dataset.path=binary.npz"]}
    targets_are_labels = "dataset.task={_target_:localearn.tasks.Classification,outputs:10}"
    for asked in (*plain.values(), ["dataset=digits", targets_are_labels]):
        assert cli.compose(["algo=pepita", *asked])[1]["recipe"] == "dense"
