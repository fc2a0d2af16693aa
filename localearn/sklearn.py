"""scikit-learn estimators that learn by a rule: in pipelines, grid searches and cross-validation as any other.

    from localearn.sklearn import RuleClassifier

    model = make_pipeline(StandardScaler(), RuleClassifier("mono_forward", net_options={"widths": (256, 256)}))
    cross_val_score(model, x, y)

There is no `partial_fit`: the mean and deviation by which rows are normalised, and the optimizer's state, belong to one
`fit`, and a call with a few more rows would continue with neither.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from localearn import registry
from localearn.data.arrays import ArrayData
from localearn.data.partition import check_fraction, held_out_size, hold_out
from localearn.data.targets import fitted
from localearn.data.transforms import Scaling, standard, unit
from localearn.defaults import LEARNING, by_default, fit_options, kind_of, net_choice, net_options, recipe, rule_name
from localearn.errors import UserError, suggestion
from localearn.nets import Net
from localearn.tasks import Regression, Task
from localearn.trainers import Trainer
from localearn.training.building import build_net_for, net_kind
from localearn.training.callbacks import Callback
from localearn.training.fit import train
from localearn.training.generator import own_random_numbers
from localearn.training.runtime import select_device
from localearn.training.settings import Settings

RECIPE = "recipe"  # the value of an option that the rule's recipe chooses
NOT_SETTINGS = ("resume", "callbacks", "lr", "task", "random_state")  # parameters that are no field of `Settings`
_OWN = ("rule", "net", "rule_options", "net_options", "group", "input_shape", "normalize", "validation_fraction")


class EstimatorError(UserError, ValueError):
    """An error that the user can correct: a ValueError, as scikit-learn's callers expect, and a `UserError`."""


class _RuleEstimator(BaseEstimator):
    """Shared base of classifier and regressor: train a rule on arrays by the estimator's parameters."""

    def __init__(
        self,
        rule: str | type[Trainer] | Trainer = "mono_forward",
        net: str | nn.Module | Callable[..., nn.Module] | None = None,
        *,
        rule_options: Mapping[str, Any] | None = None,
        net_options: Mapping[str, Any] | None = None,
        group: int = 1,
        input_shape: tuple[int, ...] | None = None,
        normalize: Literal["recipe", "standard", "unit", "none"] = "recipe",
        validation_fraction: float | None = None,
        lr: float | None = None,
        epochs: int | str = RECIPE,
        batch_size: int | str = RECIPE,
        optim: Callable[..., Any] | str = RECIPE,
        schedule: Callable[..., Any] | str | None = RECIPE,
        monitor: str | None = RECIPE,
        patience: int | str | None = RECIPE,
        min_delta: float | str = RECIPE,
        restore_best: bool | str = RECIPE,
        clip_norm: float | str | None = RECIPE,
        eval_batch_size: int = 1024,
        step: str = "all",
        capture: str = "off",
        parallel: str = "none",
        rank_timeout_s: float = 600.0,
        memory_format: str = "auto",
        precision: str = "fp32",
        device: str = "auto",
        deterministic: bool = False,
        feature_cache_bytes: int = 8 * 2**30,
        energy: bool = False,
        country: str | None = None,
        idle_s: float = 0.3,
        out: str | Path | None = None,
        log: str = "none",
        progress: bool = False,
        diagnose: str = "none",
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        task: Task | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.rule = rule
        self.net = net
        self.rule_options = rule_options
        self.net_options = net_options
        self.group = group
        self.input_shape = input_shape
        self.normalize = normalize
        self.validation_fraction = validation_fraction
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.optim = optim
        self.schedule = schedule
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.restore_best = restore_best
        self.clip_norm = clip_norm
        self.eval_batch_size = eval_batch_size
        self.step = step
        self.capture = capture
        self.parallel = parallel
        self.rank_timeout_s = rank_timeout_s
        self.memory_format = memory_format
        self.precision = precision
        self.device = device
        self.deterministic = deterministic
        self.feature_cache_bytes = feature_cache_bytes
        self.energy = energy
        self.country = country
        self.idle_s = idle_s
        self.out = out
        self.log = log
        self.progress = progress
        self.diagnose = diagnose
        self.resume = resume
        self.callbacks = callbacks
        self.task = task
        self.random_state = random_state

    @property
    def net_(self) -> Net:
        """Return the trained net: an ordinary module, which takes rows that `scaling_` has normalised."""
        check_is_fitted(self, "rule_")
        return self.rule_.net

    def _train(self, x: np.ndarray, y: np.ndarray, task: Task | None, classes: int) -> Self:
        """Train on rows (N, ...) and targets: labels (N,), 0..classes - 1, or values (N, D) of a task."""
        with _as_estimator_error(), own_random_numbers():
            seed = self._seed()
            data, self.scaling_ = self._data(x, y, task, classes, seed)
            torch.manual_seed(seed)
            trainer = self._trainer(data)
            settings = self._settings(trainer, data, seed)
            record = train(trainer, data, settings, resume=self.resume, callbacks=list(self.callbacks), test=False)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status == "diverged":
            raise EstimatorError(str(record.error))
        history = [dict(line) for line in record.history]
        if self.validation_fraction is None:  # there are no held-out rows, and no figures of any
            record.metrics.clear()
            history = [{name: v for name, v in line.items() if not name.startswith("val_")} for line in history]
        self.record_, self.history_, self.n_iter_ = record, history, record.epochs
        self.rule_ = trainer.to("cpu").eval()  # so that a model that is pickled loads where there is no GPU
        return self

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _flat(self, x: Any) -> Any:
        """Return rows as vectors, (N, D), where `input_shape` gives their shape; otherwise unchanged."""
        if self.input_shape is None or getattr(x, "ndim", 2) < 3:
            return x
        return np.asarray(x).reshape(len(x), -1)

    def _rows(self, x: np.ndarray) -> torch.Tensor:
        """Return rows in the shape that the net takes, as float64."""
        rows = torch.from_numpy(np.array(x, dtype=np.float64, order="C"))
        if self.input_shape is None:
            return rows
        size = int(np.prod(self.input_shape))
        if rows[0].numel() != size:
            raise EstimatorError(f"input_shape={self.input_shape} has {size} values, and a row {rows[0].numel()}")
        return rows.reshape(len(rows), *self.input_shape)

    def _data(
        self, x: np.ndarray, y: np.ndarray, task: Task | None, classes: int, seed: int
    ) -> tuple[ArrayData, Scaling | None]:
        """Return the data set, and the scaling of its rows; its "test" part is never evaluated."""
        rows = self._rows(x).float()
        if not bool(torch.isfinite(rows).all()):
            raise EstimatorError("X holds values beyond the range of float32")
        targets = torch.from_numpy(y)
        training = validation = np.arange(len(rows))
        if self.validation_fraction is not None:
            check_fraction("val", self.validation_fraction)
            labels = y if y.ndim == 1 else np.zeros(len(y), dtype=np.int64)
            training, validation = hold_out(labels, held_out_size("val", len(labels), self.validation_fraction), seed)
        splits = {
            "train": torch.from_numpy(training),
            "val": torch.from_numpy(validation),
            "test": torch.from_numpy(validation),
        }
        parts: dict[Any, torch.Tensor] = {split: rows[index] for split, index in splits.items()}
        goals: dict[Any, torch.Tensor] = {split: targets[index] for split, index in splits.items()}
        scaling = self._scaling(parts["train"])
        if task is not None:
            task, goals = fitted("y", task, parts, goals, scaling, None)
        return ArrayData("arrays", parts, goals, classes, scaling=scaling, task=task), scaling

    def _scaling(self, train: torch.Tensor) -> Scaling | None:
        how = self.normalize
        if how == RECIPE:
            name = None if isinstance(self.rule, Trainer) else rule_name(self._rule_class())
            how = "standard" if name is None else recipe(name)["dataset"].get("normalize", "standard")
        known = {"standard": standard, "unit": unit, "none": lambda rows: None}
        if how not in known:
            raise EstimatorError(f"normalize must be recipe, {', '.join(known)}, not {how!r}")
        return known[how](train)

    def _trainer(self, data: ArrayData) -> Trainer:
        """Return the rule on its net, both the estimator's own copies."""
        if isinstance(self.rule, Trainer):
            if not (self.net is None and self.rule_options is None and self.net_options is None):
                raise EstimatorError("a rule that is given as an instance has its net and its options; give it alone")
            return copy.deepcopy(self.rule)
        rule = self._rule_class()
        net = self._net(rule, data).group(self.group)
        net.task = data.task
        return rule(net, **(self.rule_options or {}))

    def _rule_class(self) -> type[Trainer]:
        if isinstance(self.rule, type) and issubclass(self.rule, Trainer):
            return self.rule
        known = registry.rules()
        if not isinstance(self.rule, str) or self.rule not in known:
            near = suggestion(str(self.rule), known)
            raise EstimatorError(f"no rule {self.rule!r}{near}; there are {', '.join(known)}, or a Trainer")
        return registry.member("localearn", known[self.rule].class_name)

    def _net(self, rule: type[Trainer], data: ArrayData) -> Net:
        options = dict(self.net_options or {})
        if self.net is None or isinstance(self.net, str):
            return self._named_net(rule, data, options)
        shape = rule.input_shape_for(data, kind_of(self.net))
        if isinstance(self.net, nn.Module):
            if options:
                raise EstimatorError("net_options are for a net that is built here; this one is built already")
            made = copy.deepcopy(self.net)
        else:
            made = self.net(shape, data.task.outputs, **options)
        if isinstance(made, nn.Sequential):
            return Net.from_sequential(made, shape)
        return made if isinstance(made, Net) else Net.from_torchvision(made, shape)  # pyright: ignore[reportArgumentType]

    def _named_net(self, rule: type[Trainer], data: ArrayData, options: dict[str, Any]) -> Net:
        """Return the net of a file in conf/net with the options of the rule's recipe and the user, as net=NAME does."""
        file = net_options("mlp" if self.net is None else str(self.net))
        name, kind = rule_name(rule), net_kind(file)
        if name is not None:
            which = by_default(name, not data.task.exclusive)
            chosen, net_recipe = net_choice(name, kind, which), recipe(name, kind, which)["net"]
            if self.net is None and chosen is not None:
                file = net_options(chosen)
            if self.net is None or chosen is None:
                file |= net_recipe
        return build_net_for(rule, file | options, data)

    def _settings(self, trainer: Trainer, data: ArrayData, seed: int) -> Settings:
        given = {name: getattr(self, name) for name in LEARNING if getattr(self, name) != RECIPE}
        values = not data.task.exclusive
        options = fit_options(
            type(trainer), kind_of(trainer.net), data.name, given.get("epochs"), values=values
        )  # as `fit` does
        if self.validation_fraction is None:
            wants = [name for name in ("patience", "restore_best") if given.get(name)]
            if wants:
                raise EstimatorError(f"{' and '.join(wants)} go by held-out rows; give validation_fraction, say 0.1")
            options |= {"patience": None, "restore_best": False}
        options |= given
        if self.lr is not None:
            options["optim"] = functools.partial(options["optim"], lr=self.lr)
        others = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in (*LEARNING, *NOT_SETTINGS, *_OWN)
        }
        others["out"] = None if self.out is None else Path(self.out)
        return Settings.of(**options | others | {"seed": seed})

    def _outputs(self, x: Any) -> torch.Tensor:
        """Return the rule's (N, outputs) predictions in float64.

        In single precision they would differ in their last digits with the number of rows that are predicted at once.
        """
        check_is_fitted(self, "rule_")
        x = validate_data(self, self._flat(x), reset=False, dtype=np.float64)
        with _as_estimator_error(), torch.no_grad():
            device = select_device(self.device)
            device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
            rule, rows = copy.deepcopy(self.rule_).double().to(device), self._rows(x)
            size = max(1, self.eval_batch_size)
            parts = [rule.predict(self._scaled(part).to(device)).double().cpu() for part in rows.split(size)]
        return torch.cat(parts)

    def _scaled(self, rows: torch.Tensor) -> torch.Tensor:
        if self.scaling_ is None:
            return rows
        return (rows - self.scaling_.center.double()) * self.scaling_.scale.double()


class RuleClassifier(ClassifierMixin, _RuleEstimator):
    """Classify rows by a net that a rule trains without backpropagation.

    Args:
        rule: The name of a rule ("mono_forward", see `localearn.recipe`), a class of one's own, or a rule on its net,
            `MonoForward(net)`, of which each `fit` trains a copy.
        net: The name of a net ("mlp", "cnn", ...), a module, of which each `fit` trains a copy (a `Net`, an
            `nn.Sequential`, one of torchvision's), or a function `(input_shape, outputs, **net_options)` that returns
            one, such as a class; None is the one that the rule's recipe names, or an MLP. The weights of a name and a
            function are drawn by `random_state`, a module has its own.
        rule_options: Options of the rule's constructor; those left out are its recipe's for this kind of net.
        net_options: Options of the net's constructor, likewise.
        group: The number of consecutive blocks that are merged into one, 1 or more, see `Net.group`.
        input_shape: The shape of a row where it is not a vector, such as (1, 8, 8): rows of X, flat or not, are
            reshaped to it.
        normalize: "standard", by the training rows' mean and deviation; "unit", by their extremes; "none"; or "recipe".
        validation_fraction: The fraction of the rows that is held out, in (0, 1), which `patience` and `restore_best`
            need. None trains on all rows and keeps the last epoch's weights.
        lr: The optimizer's learning rate, in place of the recipe's.
        epochs, batch_size, optim, schedule, monitor, patience, min_delta, restore_best, clip_norm: As in
            `localearn.fit`; "recipe" is the value of the rule's recipe for this kind of net.
        eval_batch_size, step, capture, parallel, rank_timeout_s, memory_format, precision, device, deterministic,
            feature_cache_bytes, energy, country, idle_s, out, log, progress, diagnose, resume, callbacks: As in
            `localearn.fit`.
        task: The task, where y is more than a label: a task of one's own with classes.
        random_state: The seed of everything that is drawn; a whole number is `localearn.fit`'s `seed`.

    Attributes:
        rule_: The trained rule, on the CPU.
        net_: Its net.
        scaling_: The scaling that normalises rows, None where there is none.
        record_: The run's record, with its seconds and, with `energy=True`, its joules.
        history_: Each epoch's line of metrics; figures of held-out rows only where there are any.
        n_iter_: The epochs that were trained.
        n_features_in_, feature_names_in_: As in every estimator.
        classes_: The labels, (C,), in the order of the outputs.

    Raises:
        EstimatorError: A ValueError, for what the user can correct, and where the loss is not finite.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x, y = load_digits(return_X_y=True)
        >>> RuleClassifier("mono_forward", net_options={"widths": (64,)}, epochs=5, random_state=0).fit(x, y)

    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Train on rows and their labels, and return the estimator.

        Args:
            X: Rows, (N, D), or (N, ...) where `input_shape` is given.
            y: Labels of any type, (N,).

        Raises:
            EstimatorError: For fewer than two classes, and for what else cannot be trained.

        """
        x: Any
        x, y = validate_data(self, self._flat(X), y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise EstimatorError(f"y has one class, {self.classes_[0]!r}, so there is nothing to distinguish")
        if self.task is not None and not self.task.has_classes:
            raise EstimatorError(f"{self.task} has values for targets, which RuleRegressor learns")
        return self._train(x, labels.astype(np.int64), self.task, len(self.classes_))

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the softmax of the rule's outputs, (N, C), a column a class in the order of `classes_`.

        They are not calibrated; those of a rule that compares goodnesses rank the classes.
        """
        return self._outputs(X).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the label of each row, (N,)."""
        chosen = self._outputs(X).argmax(-1).numpy()
        return self.classes_[chosen]


class RuleRegressor(RegressorMixin, _RuleEstimator):
    """Predict one value a row, or several, by a net that a rule trains without backpropagation.

    Arguments and attributes are those of `RuleClassifier`, except for `classes_`. `task` is a `Regression`, whose
    criterion is the loss of the standardised targets that is trained for, such as `Regression(criterion="huber")`; None
    is the squared error.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> x, y = load_diabetes(return_X_y=True)
        >>> RuleRegressor("mono_forward", net_options={"widths": (64,)}, epochs=5, random_state=0).fit(x, y)

    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train on rows and their values, and return the estimator.

        Args:
            X: Rows, (N, D), or (N, ...) where `input_shape` is given.
            y: Values, (N,) or (N, outputs).

        Raises:
            EstimatorError: For what cannot be trained.

        """
        x: Any
        x, y = validate_data(self, self._flat(X), y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._one_column = y.ndim == 1
        values = np.array(y, dtype=np.float32).reshape(len(y), -1)
        task = Regression(values.shape[1]) if self.task is None else self.task
        if not isinstance(task, Regression):
            raise EstimatorError(f"{task} is no Regression, whose values RuleRegressor predicts")
        return self._train(x, values, task, 0)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the values of each row in the unit of y, (N,) or (N, outputs) as y was."""
        outputs = self._outputs(X)
        task = self.rule_.task
        assert isinstance(task, Regression)
        values = task.decode(outputs).numpy()
        return values[:, 0] if self._one_column else values

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags, which say that several values a row are accepted."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@contextlib.contextmanager
def _as_estimator_error() -> Iterator[None]:
    try:
        yield
    except EstimatorError:
        raise
    except UserError as error:
        raise EstimatorError(*error.args) from error
