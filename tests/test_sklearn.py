"""The scikit-learn estimators: scikit-learn's own suite, and that they train what `localearn.fit` trains."""

import inspect
import pickle
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

import localearn
from localearn.benching.plan import known_rules
from localearn.data import from_arrays
from localearn.sklearn import EstimatorError, RuleClassifier, RuleRegressor
from localearn.training import Settings

SMALL: dict[str, Any] = {"net_options": {"widths": (8,)}, "epochs": 3, "batch_size": 32, "random_state": 0}
FIRST = "blocks.0.op.weight"
# Enough of what the suite asks of an estimator's parameters, arrays and columns; `-m slow` makes every check.
QUICK = {
    "check_estimator_cloneable",
    "check_get_params_invariance",
    "check_parameters_default_constructible",
    "check_dataframe_column_names_consistency",
    "check_dict_unchanged",
    "check_estimators_nan_inf",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
}


def checks():
    learning: dict[str, Any] = {"net_options": {"widths": (16,)}, "epochs": 20, "batch_size": 16, "lr": 0.01}
    for estimator in (RuleClassifier(**learning), RuleRegressor(**learning)):
        found: Any = estimator_checks_generator(estimator)
        for instance, check in found:
            name = check.func.__name__
            marks = () if name in QUICK else pytest.mark.slow
            yield pytest.param(instance, check, marks=marks, id=f"{type(instance).__name__}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_own_suite_passes(estimator, check):
    """None of its checks is expected to fail; the one of array API inputs skips itself unless it is switched on."""
    check(estimator)


def arrays(load) -> tuple[np.ndarray, np.ndarray]:
    return load(return_X_y=True)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = arrays(load_digits)
    return x[:240].astype(np.float32), y[:240]


def test_every_option_of_fit_is_a_parameter_with_the_same_default():
    parameters = inspect.signature(RuleClassifier).parameters
    of_fit = {field.name: field.default for field in fields(Settings) if field.name != "seed"}
    assert {*of_fit, "resume", "callbacks"} <= parameters.keys()
    differ = {name for name, default in of_fit.items() if parameters[name].default != default}
    assert {parameters[name].default for name in differ} == {"recipe"}
    assert inspect.signature(RuleRegressor).parameters == parameters


def test_it_trains_the_weights_that_fit_trains(digits):
    x, y = digits
    held_out: dict[str, Any] = {"validation_fraction": 0.1, "patience": 2, "restore_best": True}
    model = RuleClassifier("direct_feedback_alignment", **{**SMALL, "random_state": 3}, **held_out).fit(x, y)
    data = from_arrays(x, y, x, y, seed=3)
    torch.manual_seed(3)
    net = localearn.MLP(data.input_shape, 10, widths=(8,))
    rule = localearn.DirectFeedbackAlignment(net)
    record = rule.fit(data, epochs=3, batch_size=32, seed=3, patience=2, restore_best=True)
    for name, tensor in rule.state_dict().items():
        assert torch.equal(tensor, model.rule_.state_dict()[name]), name
    assert model.history_[-1]["val_accuracy"] == record.history[-1]["val_accuracy"]
    assert model.score(x, y) == pytest.approx(record.metric("accuracy"), abs=1e-6)


def test_without_held_out_rows_all_are_trained_on_and_no_figure_is_of_any(digits):
    model = RuleClassifier(**SMALL).fit(*digits)
    assert model.record_.train_samples == 240
    assert model.record_.metrics == {}
    assert not any(name.startswith("val_") for line in model.history_ for name in line)
    assert model.n_iter_ == 3


def test_words_and_data_frames(digits):
    import pandas as pd

    x, y = digits
    frame = pd.DataFrame(x, columns=[f"pixel_{k}" for k in range(64)])
    words = pd.Series(y).map(lambda label: f"digit {label}")
    model: Any = RuleClassifier(**SMALL).fit(frame, words)
    assert list(model.feature_names_in_) == list(frame.columns)
    assert set(model.predict(frame)) <= set(words)
    assert np.array_equal(model.predict_proba(frame), RuleClassifier(**SMALL).fit(x, y).predict_proba(x))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])


def test_probabilities_sum_to_one_and_do_not_depend_on_how_rows_are_batched(digits):
    x, y = digits
    model = RuleClassifier("forward_forward", **SMALL).fit(x, y)
    whole = model.predict_proba(x[:20])
    assert whole.sum(1) == pytest.approx(np.ones(20))
    np.testing.assert_allclose(np.concatenate([model.predict_proba(row[None]) for row in x[:20]]), whole, rtol=1e-9)


def test_values_come_back_in_the_targets_unit():
    x, y = arrays(load_diabetes)
    two = np.stack([y, 1000 - 2 * y], axis=1)
    model: Any = RuleRegressor(net_options={"widths": (32,)}, epochs=30, batch_size=32, lr=0.003, random_state=0)
    one: Any = clone(model)
    one.fit(x, y)
    assert one.predict(x).shape == y.shape
    assert one.score(x, y) > 0.4
    several: Any = clone(model)
    predicted = several.fit(x, two).predict(x)
    assert predicted.shape == two.shape
    assert np.corrcoef(predicted.T)[0, 1] < -0.9
    huber: Any = clone(model)
    huber.set_params(task=localearn.Regression(criterion="huber"), epochs=1).fit(x, y)
    assert huber.rule_.task.criterion == "huber"


def a_net(input_shape, outputs, width=8) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, outputs))


def test_a_net_is_a_name_a_module_or_a_function(digits):
    x, y = digits
    sequential = a_net((64,), 10)
    before = sequential.state_dict()["0.weight"].clone()
    options: dict[str, Any] = {"epochs": 1, "random_state": 0}
    by_module = RuleClassifier("backprop", sequential, **options).fit(x, y)
    assert torch.equal(sequential.state_dict()["0.weight"], before), "the estimator trains a copy"
    assert not torch.equal(by_module.net_.state_dict()[FIRST], before)
    by_function = RuleClassifier("backprop", a_net, net_options={"width": 5}, **options).fit(x, y)
    assert by_function.net_.widths == (5,)
    by_class = RuleClassifier("backprop", localearn.MLP, net_options={"widths": (4, 3)}, group=2, **options).fit(x, y)
    assert by_class.net_.depth == 1
    cnn: dict[str, Any] = {"net_options": {"channels": (4, 4)}, "input_shape": (1, 8, 8)}
    maps = RuleClassifier("mono_forward", "cnn", **cnn, **options).fit(x, y)
    assert np.array_equal(maps.predict(x), maps.predict(x.reshape(-1, 8, 8)))


def test_a_rule_is_a_name_a_class_or_an_instance_of_which_a_copy_is_trained(digits):
    x, y = digits
    torch.manual_seed(0)
    rule = localearn.MonoForward(localearn.MLP((64,), 10, widths=(8,)))
    before = rule.net.state_dict()[FIRST].clone()
    options = {name: value for name, value in SMALL.items() if name != "net_options"}
    by_instance = RuleClassifier(rule, **options).fit(x, y)
    assert torch.equal(rule.net.state_dict()[FIRST], before)
    by_class, by_name = (RuleClassifier(given, **SMALL).fit(x, y) for given in (localearn.MonoForward, "mono_forward"))
    for found in (by_class, by_name):
        assert torch.equal(found.net_.state_dict()[FIRST], by_instance.net_.state_dict()[FIRST])


def test_what_a_recipe_says_of_the_net_and_the_rows_holds_here_too(digits):
    digits = [array[:40] for array in digits]
    own = RuleClassifier("noprop", epochs=1, random_state=0).fit(*digits)
    assert isinstance(own.net_, localearn.Denoiser)
    by_extremes = RuleClassifier("pepita", **SMALL).fit(*digits).scaling_
    assert by_extremes and by_extremes.note.startswith("unit")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"rule": "mono_forwad"}, "mono_forward"),
        ({"net": "mpl"}, "'mlp'"),
        ({"patience": 3}, "validation_fraction"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"net_options": {"widhts": (3,)}}, "widths"),
        ({"input_shape": (3, 5)}, "64"),
        ({"normalize": "rows"}, "standard, unit"),
        ({"lr": 1e12, "optim": torch.optim.SGD, "epochs": 20}, "not finite"),
        ({"task": localearn.Regression()}, "RuleRegressor"),
        ({"rule": localearn.MonoForward(localearn.MLP((64,), 10, widths=(4,)))}, "give it alone"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_is_wrong_is_a_value_error_in_a_line(digits, parameters, told):
    with pytest.raises(EstimatorError, match=told) as caught:
        RuleClassifier(**{**SMALL, **parameters}).fit(*digits)
    assert isinstance(caught.value, ValueError)


def test_before_fit_there_is_no_net():
    with pytest.raises(NotFittedError):
        _ = RuleClassifier().net_


def test_a_trained_model_is_pickled_and_the_callers_random_numbers_stay(digits):
    state = torch.get_rng_state()
    model = RuleClassifier(**SMALL).fit(*digits)
    assert torch.equal(torch.get_rng_state(), state)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))


def test_in_a_pipeline_and_a_grid_search(digits):
    pipeline = make_pipeline(StandardScaler(), RuleClassifier(**SMALL))
    grid = {"ruleclassifier__rule": ["mono_forward", "backprop"], "ruleclassifier__lr": [1e-5, 0.01]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(*digits)
    assert search.best_params_["ruleclassifier__lr"] == 0.01
    assert search.best_score_ > 0.4


@pytest.mark.slow
def test_folds_in_processes_score_as_in_one(digits):
    model = RuleClassifier(**SMALL, optim=partial(torch.optim.SGD, lr=0.1))
    alone, shared = (cross_val_score(model, *digits, cv=3, n_jobs=jobs) for jobs in (1, 2))
    assert np.array_equal(alone, shared)
    assert alone.min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", known_rules())
def test_every_rule_predicts_in_double_what_it_predicts_in_single_precision(digits, name):
    x, y = digits
    try:
        model = RuleClassifier(name, epochs=1, random_state=0).fit(x, y)
    except EstimatorError as refused:
        assert name in ("forward_gnn", "state_feedback", "scalable_forward_forward"), refused
        return
    rows = torch.from_numpy(x)
    with torch.no_grad():
        single = model.rule_.predict(model.scaling_(rows) if model.scaling_ else rows).softmax(-1).numpy()
    np.testing.assert_allclose(model.predict_proba(x), single, atol=1e-4)
