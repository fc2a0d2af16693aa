import dataclasses
import json
import shlex
from typing import Any

import pytest
from omegaconf import OmegaConf

from localearn import cli
from localearn.cli import compare, tune
from localearn.errors import UserError

SMALL = ["dataset=digits", "dataset.train_size=150", "net.widths=[8]", "energy.enabled=false", "progress=false"]


def plan_of(tmp_path, *arguments):
    return compare.parse(["algos=[backprop,mono_forward]", f"out={tmp_path / 'c'}", *SMALL, *arguments])


def test_runs_are_interleaved_and_matched_runs_make_equal_passes(tmp_path):
    plan = plan_of(tmp_path, "seeds=[0,1]", "epochs=4", "protocols=[matched]", "mono_forward:algo.schedule=greedy",
                   "net.widths=[8,8]")  # fmt: skip
    jobs = compare.schedule(plan)
    assert [job.folder.name for job in jobs] == [
        "matched-backprop-0", "matched-mono_forward-0", "matched-backprop-1", "matched-mono_forward-1",
    ]  # fmt: skip
    assert "epochs=4" in jobs[0].overrides
    assert "epochs=2" in jobs[1].overrides, "two greedy stages share the four passes"
    assert "algo.schedule=greedy" in jobs[1].overrides
    assert not any("schedule=greedy" in override for override in jobs[0].overrides)


def test_converged_runs_share_one_patience_and_a_larger_budget(tmp_path):
    plan = plan_of(tmp_path, "seeds=0", "epochs=3", "patience=2", "protocols=[converged]")
    for job in compare.schedule(plan):
        assert "patience=2" in job.overrides
        assert "epochs=15" in job.overrides


def test_epochs_that_the_stages_cannot_share_are_refused(tmp_path):
    plan = plan_of(tmp_path, "epochs=3", "net.widths=[8,8]", "mono_forward:algo.schedule=greedy")
    with pytest.raises(UserError, match="multiple of 2"):
        compare.schedule(plan)


def test_stages_of_a_single_pass_count_as_one_pass(tmp_path):
    plan = plan_of(tmp_path, "net.widths=[8,8]", "epochs=6", "protocols=[matched]", "algos=[backprop,cafo]",
                   "cafo:algo.blocks=dfa")  # fmt: skip
    assert "epochs=4" in compare.schedule(plan)[1].overrides
    plan = plan_of(tmp_path, "net.widths=[8,8]", "epochs=2", "algos=[backprop,cafo]", "cafo:algo.blocks=dfa")
    with pytest.raises(UserError, match=r"2 of them for a single pass.*2 more than a multiple of 1"):
        compare.schedule(plan)
    with pytest.raises(UserError, match=r"cafo as it is set makes 2 passes and no more.*protocols=\[converged\]"):
        compare.schedule(plan_of(tmp_path, "net.widths=[8,8]", "algos=[backprop,cafo]"))
    plan = plan_of(tmp_path, "net.widths=[8,8]", "algos=[backprop,cafo]", "epochs=2", "protocols=[matched]")
    assert ["epochs=2" in job.overrides for job in compare.schedule(plan)[:2]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out=x"], "algos= is missing"),
        (["algos=[backprop]"], "out= is missing"),
        (["algos=[backprop]", "out=x", "baseline=mono_forward"], "not among"),
        (["algos=[backprop]", "out=x", "seeds=[0,a]"], "whole numbers"),
        (["algos=[backprop]", "out=x", "seeds=[0,0]"], "stands twice"),
        (["algos=[backprop,]", "out=x"], "cannot read the list"),
        (["algos=[backprop]", "out=x", "protocols=[matchd]"], "did you mean 'matched'"),
        (["algos=[backprop]", "out=x", "algo=backprop"], "set by the comparison"),
        (["algos=[backprop]", "out=x", "epochs=0"], "1 or more"),
        (["algos=[backprop]", "out=x", "warm_up=maybe"], "true or false"),
        (["algos=[backprop]", "out=x", "nonsense"], "key=value"),
        (["algos=[backprop]", "out=x", "backprp:optim.lr=1"], "did you mean 'backprop'"),
    ],
)
def test_bad_command_lines_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        compare.parse(arguments)


def test_an_unknown_rule_or_net_is_told_before_anything_runs(tmp_path):
    plan = plan_of(tmp_path, "net=gcn")
    with pytest.raises(UserError):
        compare.schedule(plan)
    plan = compare.parse(["algos=[backprop,mono_foward]", f"out={tmp_path / 'c'}", *SMALL])
    with pytest.raises(UserError, match="did you mean 'mono_forward'"):
        compare.schedule(plan)
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_trained_is_told_before_anything_runs(tmp_path):
    both = ["algos=[backprop,forward_forward]", "batch_size=100"]
    plan = compare.parse([*both, f"out={tmp_path / 'c'}", "diagnose=alignment", *SMALL])
    with pytest.raises(UserError, match="ForwardForward predicts by more than the net; use diagnose=none"):
        compare.schedule(plan)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("epochs", "protocol", "refused"),
    [(3, "matched", False), (4, "matched", True), (1, "converged", True), (3, "matched,converged", True)],
)
def test_a_schedule_that_a_protocol_outlasts_is_told_before_anything_runs(tmp_path, epochs, protocol, refused):
    (tmp_path / "schedule").mkdir()
    one_cycle = "_target_: torch.optim.lr_scheduler.OneCycleLR\n_partial_: true\nmax_lr: 0.1\ntotal_steps: 3\n"
    (tmp_path / "schedule" / "one_cycle.yaml").write_text(one_cycle)
    arguments = ["schedule=one_cycle", f"epochs={epochs}", f"protocols=[{protocol}]"]
    plan = dataclasses.replace(plan_of(tmp_path, *arguments), config_dir=str(tmp_path))
    if not refused:
        assert compare.schedule(plan)
        return
    with pytest.raises(UserError, match=r"^schedule: Tried to step .* in epoch 4 of"):
        compare.schedule(plan)
    assert not (tmp_path / "c").exists()


def test_a_schedule_is_as_long_as_the_protocols_epochs_where_it_follows_them(tmp_path):
    assert compare.schedule(plan_of(tmp_path, "schedule=cool_down", "epochs=2"))


@pytest.mark.parametrize(
    ("unlike", "said"),
    [
        ("mono_forward:batch_size=7", "mono_forward has batch_size=7 where backprop has batch_size=128"),
        ("mono_forward:precision=bf16", "say precision=fp32 for all, or allow_unlike=true"),
        ("backprop:net.widths=[9]", r"mono_forward has net.widths=\[8\] where backprop has net.widths=\[9\]"),
        ("mono_forward:dataset.augment=crop", "has dataset.augment=crop"),
    ],
)
def test_what_the_report_would_not_compare_is_told_before_anything_runs(tmp_path, unlike, said):
    with pytest.raises(UserError, match=said):
        compare.schedule(plan_of(tmp_path, unlike))
    if "augment" not in unlike:  # digits have none
        assert compare.schedule(plan_of(tmp_path, unlike, "allow_unlike=true"))


@pytest.mark.slow
def test_each_rule_runs_with_what_its_search_found(tmp_path, capsys):
    small = [*SMALL, "epochs=2", "seed=3"]
    for algo, more in (("backprop", "optim.lr=0.02"), ("mono_forward", "algo.prediction=ff")):
        ranges = f"tune.space.lr={'null' if 'lr' in more else '{low:0.001,high:0.002}'}"
        space = ["tune.space.weight_decay={choices:[0.0]}", ranges]
        assert tune.main([f"algo={algo}", *small, more, *space, "trials=2", f"out={tmp_path / 'tuned' / algo}"]) == 0
    out, options = tmp_path / "c", ["algos=[backprop,mono_forward]", "seeds=[0,1]", "epochs=3", "warm_up=false"]
    asked = [*options, f"tuned={tmp_path / 'tuned'}", f"out={out}", "protocols=[matched]", "progress=false"]
    assert compare.main(asked) == 0
    records = [json.loads(path.read_text()) for path in sorted(out.glob("runs/*/run.json"))]
    assert [record["config"]["epochs"] for record in records] == [3] * 4
    assert [record["seed"] for record in records] == [0, 1, 0, 1]
    assert {record["config"]["optim"]["lr"] for record in records[:2]} == {0.02}
    assert {record["config"]["algo"]["prediction"] for record in records[2:]} == {"ff"}
    report = json.loads((out / "report.json").read_text())
    assert [tuning["trials"] for tuning in report["tunings"]] == [{"complete": 2}] * 2
    assert report["groups"][0]["rules"][1]["measures"]["test_accuracy"]["to_baseline"] is not None
    assert "options found" in (out / "report.md").read_text().lower()


def test_a_rule_that_was_not_searched_for_is_told_with_the_command(tmp_path):
    with pytest.raises(UserError, match=r"localearn tune algo=backprop out=.*backprop"):
        plan_of(tmp_path, f"tuned={tmp_path}")


def test_a_comparison_goes_on_where_it_stopped_and_its_report_can_be_rebuilt(tmp_path, capsys):
    out = tmp_path / "c"
    arguments = [
        "algos=[backprop,mono_forward]",
        "seeds=[0,1]",
        "epochs=2",
        "protocols=[matched]",
        f"out={out}",
        *SMALL,
    ]
    assert compare.main(list(arguments)) == 0
    for name in ("report.html", "report.md", "report.csv", "report.json"):
        assert (out / name).stat().st_size > 0
    first = (out / "report.json").read_bytes()
    record = json.loads((out / "runs" / "matched-mono_forward-1" / "run.json").read_text())
    assert (record["algo"], record["seed"], record["protocol"], record["passes"]) == ("mono_forward", 1, "matched", 2)

    finished = (out / "runs" / "matched-backprop-0" / "run.json").stat().st_mtime_ns
    capsys.readouterr()
    assert compare.main(list(arguments)) == 0
    assert capsys.readouterr().out.count("completed already; reused") == 4
    assert (out / "runs" / "matched-backprop-0" / "run.json").stat().st_mtime_ns == finished
    assert (out / "report.json").read_bytes() == first

    with pytest.raises(UserError, match="another batch_size"):
        compare.main([*arguments, "batch_size=7"])


def test_the_commands_of_a_report_make_its_runs_again(tmp_path):
    out = tmp_path / "c"
    arguments = ["algos=[backprop,mono_forward]", "seeds=[0,1]", "epochs=2", "protocols=[matched]", "warm_up=false"]
    compare.main([*arguments, f"out={out}", *SMALL, "optim=sgd"])
    page = (out / "report.md").read_text()
    commands = [shlex.split(line) for line in page.splitlines() if "localearn.run -m" in line]
    assert [command[4] for command in commands] == ["algo=backprop", "algo=mono_forward"]
    for command in commands:
        assert command[-1] == "seed=0,1"
        algo = command[4].removeprefix("algo=")
        config, _ = cli.compose([*command[4:-1], "seed=0"])
        saved: Any = OmegaConf.load(out / "runs" / f"matched-{algo}-0" / "config.yaml")
        for key in ("algo", "dataset", "net", "optim", "schedule", "epochs", "patience", "protocol"):
            assert config[key] == saved[key], key
