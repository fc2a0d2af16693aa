"""What a comparison comes to, in words, and how it was made."""

import pytest

from localearn.reporting.verdict import method, verdict


def judge(comparison):
    return verdict(comparison.groups[0], comparison.baseline)


def test_verdict_names_what_is_larger_than_its_interval_and_what_is_not(compared, factory):
    first, second = judge(compared(*factory.two_rules())).split(". ")
    assert "mono_forward in training time ×0.79" in first
    assert "gross energy (estimated) ×" in first
    assert "test accuracy" not in first
    assert second.startswith("Not larger than their interval")
    assert "test accuracy +" in second


def test_verdict_on_two_seeds_trusts_no_interval(compared, factory):
    words = judge(compared(*factory.two_rules(seeds=[0, 1])))
    assert words.startswith("With 2 paired seeds no interval can be trusted")
    assert len(words.split(". ")) == 2


def test_verdict_on_equals_claims_nothing(compared, factory):
    records = [factory.record("backprop", seed) for seed in range(3)]
    words = judge(compared(*records, *(made | {"algo": "twin"} for made in records)))
    assert words.startswith("No difference to backprop is larger than its 95 % interval.")


def test_verdict_names_flags_and_what_was_not_compared(compared, factory):
    records = factory.two_rules()
    for made in records[3:]:
        made["energy"]["flags"] = ["throttled"]
    records += [factory.record("forward_forward", seed, batch_size=64) for seed in range(3)]
    words = judge(compared(*records))
    assert "gross energy (estimated, flagged throttled)" in words
    assert "not compared is forward_forward (not comparable)" in words


def test_verdict_without_a_rule_and_without_a_baseline(compared, factory):
    assert judge(compared(factory.record())).startswith("Only backprop completed here")


def test_verdict_without_a_baseline(compared, factory):
    words = judge(compared(factory.record("mono_forward")))
    assert words.startswith("No rule can be compared with backprop here: mono_forward (no backprop to compare with).")


@pytest.mark.parametrize("stages", [1, 3])
def test_what_a_pass_of_a_rule_in_stages_is_stands_in_the_method(compared, factory, stages):
    told = " ".join(method(compared(*factory.two_rules(stages=stages))))
    assert ("one after another: mono_forward (3)" in told) == (stages == 3)
