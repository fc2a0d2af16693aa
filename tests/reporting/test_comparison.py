import math

import pytest

from localearn.reporting.statistics import ratio_interval


def measure(comparison, key, algo="mono_forward", group=0):
    rule = next(rule for rule in comparison.groups[group].rules if rule.algo == algo)
    found = rule.measure(key)
    assert found is not None
    return found


def test_ratios_are_paired_by_seed(compared, factory):
    records = factory.two_rules()
    time = measure(compared(*reversed(records)), "train_s")
    expected = ratio_interval([made["train_s"] for made in records[3:]], [made["train_s"] for made in records[:3]])
    assert time.ratio == expected
    assert time.paired
    assert time.differs


def test_accuracy_is_compared_by_difference(compared, factory):
    records = factory.two_rules()
    accuracy = measure(compared(*records), "test_accuracy")
    differences = [
        ours["test_accuracy"] - theirs["test_accuracy"] for ours, theirs in zip(records[3:], records[:3], strict=True)
    ]
    assert accuracy.ratio.mean == pytest.approx(sum(differences) / 3)
    assert accuracy.ratio.low < accuracy.ratio.mean < accuracy.ratio.high


def test_the_baseline_comes_first_and_has_no_ratio(compared, factory):
    comparison = compared(*factory.two_rules())
    assert [rule.label for rule in comparison.groups[0].rules] == ["backprop", "mono_forward"]
    assert measure(comparison, "train_s", "backprop").ratio is None


def test_joules_per_sample(compared, factory):
    comparison = compared(factory.record())
    run = comparison.runs[0]
    per_sample = measure(comparison, "j_per_sample", "backprop").values[0].estimate.mean
    assert per_sample == pytest.approx(run.energy.train_j / (20 * 1294))


def test_only_common_seeds_are_paired(compared, factory):
    records = [factory.record("backprop", seed) for seed in (0, 1, 2)]
    records += [factory.record("mono_forward", seed) for seed in (1, 2, 7)]
    time = measure(compared(*records), "train_s")
    assert time.ratio.n == 2
    assert time.values[0].estimate.n == 3


def test_no_common_seed_gives_a_ratio_without_an_interval(compared, factory):
    def made(algo, seed, train_s):
        return factory.record(algo, seed, train_s=train_s, data_fingerprint="sha256:one")

    time = measure(
        compared(made("backprop", 0, 8.0), made("backprop", 1, 2.0), made("mono_forward", 5, 2.0)), "train_s"
    )
    assert not time.paired
    assert time.ratio.low is None
    assert time.ratio.mean == pytest.approx(0.5)
    assert not time.differs


def test_one_seed_has_no_interval(compared, factory):
    time = measure(compared(*factory.two_rules(seeds=[0])), "train_s")
    assert time.values[0].estimate.low is None
    assert time.ratio.low is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 64}, "batch size 64 against 128"),
        ({"precision": "bf16"}, "precision bf16 against fp32"),
        ({"capture": "graph"}, "capture graph against off"),
        ({"ranks": 2, "parallel": "data"}, "processes 2 (data) against 1"),
        ({"config": {"step": "block"}}, "steps block against all"),
        ({"device": {"type": "cpu", "name": "Another", "threads": 2}}, "device Another, 2 threads against"),
        ({"device": {"type": "cpu", "name": "AMD EPYC 7763", "threads": 4}}, "4 threads against"),
        ({"data_fingerprint": "sha256:other"}, "data digits with another fingerprint"),
        ({"deterministic": True}, "deterministic True against False"),
        ({"net": "mlp_3x256"}, "net mlp_3x256 against mlp_2x256"),
        ({"dataset": "mnist", "config": {"dataset": {"name": "mnist"}}}, "data mnist against digits"),
        ({"config": {"net": {"widths": [9]}}}, "net mlp_2x256 under two configurations"),
        ({"config": {"dataset": {"augment": "crop_flip"}}}, "augmentation crop_flip against not recorded"),
    ],
)
def test_unlike_runs_get_no_ratio_and_the_reason_is_said(compared, factory, change, said):
    comparison = compared(*factory.two_rules(**change))
    groups = [group for group in comparison.groups if any(rule.algo == "mono_forward" for rule in group.rules)]
    (rule,) = [rule for group in groups for rule in group.rules if rule.algo == "mono_forward"]
    assert all(measure.ratio is None and measure.refusal == "not comparable" for measure in rule.measures)
    assert any(said in note and "not compared" in note for note in comparison.notes)


@pytest.mark.parametrize(("group", "differs"), [(1, False), (2, True)])
def test_a_run_older_than_groups_of_blocks_has_none(compared, factory, group, differs):
    net = factory.record()["config"]["net"] | {"group": group}
    comparison = compared(*factory.two_rules(config={"net": net}))
    assert any("under two configurations" in note for note in comparison.notes) == differs


def test_runs_that_did_not_stop_alike_are_noted(compared, factory):
    patient = factory.record()["config"] | {"patience": 20}
    comparison = compared(
        *(factory.record("backprop", seed, protocol="converged", config=patient) for seed in range(3)),
        *(factory.record("mono_forward", seed, protocol="converged") for seed in range(3)),
    )
    (note,) = [note for note in comparison.notes if "not stopped alike" in note]
    assert "patience=20" in note and "patience=not recorded" in note


def test_runs_that_stopped_alike_need_no_note(compared, factory):
    assert not compared(*factory.two_rules(protocol="converged")).notes


def test_unlike_runs_are_compared_if_asked_and_it_is_said(compared, factory):
    comparison = compared(*factory.two_rules(batch_size=64), allow_unlike=True)
    assert measure(comparison, "train_s").ratio is not None
    assert any("compared nevertheless, as asked" in note for note in comparison.notes)


def test_like_runs_are_preferred_to_unlike_ones(compared, factory):
    unlike = [factory.record("backprop", seed, batch_size=64, train_s=1.0) for seed in range(3)]
    comparison = compared(*unlike, *factory.two_rules())
    assert measure(comparison, "train_s").ratio.mean == pytest.approx(0.79, abs=0.03)
    labels = [rule.label for rule in comparison.groups[0].rules if rule.algo == "backprop"]
    assert sorted(labels) == ["backprop (batch size 128)", "backprop (batch size 64)"]


def test_fingerprints_may_differ_by_seed(compared, factory):
    assert measure(compared(*factory.two_rules()), "train_s").ratio is not None


def test_protocols_are_never_mixed(compared, factory):
    comparison = compared(*factory.two_rules(protocol="converged"))
    assert len(comparison.groups) == 2
    time = next(rule for group in comparison.groups for rule in group.rules if rule.algo == "mono_forward").measure(
        "train_s"
    )
    assert time.refusal == "no backprop to compare with"


def test_labels_are_neither_averaged_nor_compared(compared, factory):
    records = factory.two_rules()
    records[3]["energy"] = factory.energy("cuda", 9.0, 1.0)
    joules = measure(compared(*records), "train_j")
    assert {(value.reading.label, value.estimate.n) for value in joules.values} == {("measured", 1), ("estimated", 2)}
    assert joules.ratio is None
    assert "estimated, codecarbon, cpu against measured, nvml, gpu" in joules.refusal


def test_absent_energy_is_no_number(compared, factory):
    comparison = compared(*factory.two_rules(energy=factory.no_energy()))
    joules = measure(comparison, "train_j")
    assert joules.values == ()
    assert joules.missing == 3
    assert joules.refusal == "absent"
    assert measure(comparison, "train_s").ratio is not None


def test_net_joules_below_zero_get_no_ratio(compared, factory):
    records = factory.two_rules()
    records[4]["energy"]["train_net_j"] = -1.0
    net = measure(compared(*records), "train_net_j")
    assert net.refusal == "not comparable: a ratio needs numbers above 0"
    assert net.values[0].estimate.n == 3


def test_the_latest_of_two_equal_runs_is_taken_and_said(compared, factory):
    late = factory.record(train_s=1.0, finished="2026-11-20T18:00:00+02:00")  # 16:00 in UTC
    early = factory.record(train_s=2.0, finished="2026-11-20T15:59:00+00:00")
    comparison = compared(late, early)
    assert measure(comparison, "train_s", "backprop").values[0].estimate.mean == 1.0
    assert any("more than once" in note and "/001 is left out" in note for note in comparison.notes)


def test_runs_that_did_not_complete_are_set_apart(compared, factory):
    bad = factory.record("mono_forward", 3, status="diverged", test_accuracy=None, error="loss is inf")
    comparison = compared(*factory.two_rules(), bad)
    assert measure(comparison, "train_s").values[0].estimate.n == 3
    assert [(run.record.status, run.record.error) for run in comparison.excluded] == [("diverged", "loss is inf")]


def test_cost_of_a_common_accuracy(compared, factory):
    records = factory.two_rules()
    comparison = compared(*records)
    target = comparison.groups[0].common
    assert target == min(max(line["val_accuracy"] for line in factory.epochs(made)) for made in records)
    joules = []
    for made in records[3:]:
        joules.append(next(line["train_j"] for line in factory.epochs(made) if line["val_accuracy"] >= target))
    assert measure(comparison, "common_accuracy_j").values[0].estimate.mean == pytest.approx(math.fsum(joules) / 3)


def test_flags_are_counted_beside_joules_alone(compared, factory):
    records = factory.two_rules()
    records[3]["energy"]["flags"] = ["too_short"]
    comparison = compared(*records)
    assert measure(comparison, "train_j").flags == (("too_short", 1),)
    assert measure(comparison, "train_s").flags == ()


def test_unequal_budgets_under_the_matched_protocol_are_noted(compared, factory):
    comparison = compared(*factory.two_rules(passes=12.0))
    assert any("budgets are not matched" in note for note in comparison.notes)


def test_resumed_runs_are_noted(compared, factory):
    comparison = compared(factory.record(seams=[{"resumed": "2026-11-20T14:00:10+00:00", "epoch": 3}]))
    assert any("resumed" in note for note in comparison.notes)


def test_groups_are_sorted_as_people_count(compared, factory):
    comparison = compared(*(factory.record(net=f"mlp_{depth}x9") for depth in (16, 4)))
    assert [group.net for group in comparison.groups] == ["mlp_4x9", "mlp_16x9"]


def changed(made, **parts):
    """Return a record with options of its configuration's groups changed."""
    config = {**made["config"]}
    for part, values in parts.items():
        config[part] = {**config.get(part, {}), **values} if isinstance(values, dict) else values
    return made | {"config": config}


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ({"optim": {"lr": 0.5}}, "optim.lr=0.5"),
        ({"algo": {"lr": 0.5}}, "algo.lr=0.5"),
        ({"epochs": 40}, "epochs=40"),
        ({"patience": 3}, "patience=3"),
    ],
)
def test_a_rule_with_other_options_is_a_row_of_its_own(compared, factory, parts, label):
    usual = [factory.record("mono_forward", seed) for seed in (0, 1)]
    others = [changed(factory.record("mono_forward", seed), **parts) for seed in (0, 1)]
    comparison = compared(*usual, *others)
    rules = [rule for group in comparison.groups for rule in group.rules]
    assert sorted(len(rule.runs) for rule in rules) == [2, 2]
    assert any(label in rule.label for rule in rules)
    assert not any("more than once" in note for note in comparison.notes)


def test_runs_of_other_data_under_one_name_are_not_averaged(compared, factory):
    usual = [factory.record(seed=seed) | {"data_fingerprint": "sha256:a"} for seed in (0, 1)]
    others = [factory.record(seed=seed) | {"data_fingerprint": "sha256:b"} for seed in (1, 2)]
    made = [changed(run, dataset={"split_seed": 0}) for run in (*usual, *others)]
    rules = [rule for group in compared(*made).groups for rule in group.rules]
    assert sorted([run.record.seed for run in rule.runs] for rule in rules) == [[0, 1], [1, 2]]
    assert {rule.label for rule in rules} == {"backprop (data a)", "backprop (data b)"}


def test_splits_that_follow_the_seed_are_one_row(compared, factory):
    made = [changed(factory.record(seed=seed), dataset={"split_seed": seed}) for seed in (0, 1, 2)]
    (rule,) = [rule for group in compared(*made).groups for rule in group.rules]
    assert len(rule.runs) == 3


def test_rules_of_one_name_in_two_modules_are_two(compared, factory):
    made = [factory.record("Mine") | {"rule": f"{module}.Mine"} for module in ("one", "two")]
    labels = {rule.label for group in compared(*made).groups for rule in group.rules}
    assert labels == {"Mine (rule=one.Mine)", "Mine (rule=two.Mine)"}
