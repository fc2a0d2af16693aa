"""The base class of all learning rules, the protocols that they meet, and the losses and gradients that they share."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from localearn import registry
from localearn.data import Batch, Data
from localearn.defaults import kind_of, rule_options
from localearn.errors import Unsupported, UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.layers import FLAT
from localearn.options import checked
from localearn.records import Record
from localearn.tasks import Classification, Task
from localearn.trainers.former import FormerContract, adapt
from localearn.trainers.former import Stage as Stage  # for who imports it from here
from localearn.trainers.former_names import present_names
from localearn.trainers.phases import Descent, Metrics, Parts, Phase


class Fit(Protocol):
    """Train a rule, as `localearn.training.fit` does."""

    def __call__(self, trainer: "Trainer", data: Any, **options: Any) -> Record:
        """Train the rule on data and return the record of the run."""
        ...


F = TypeVar("F", bound=Fit)


class Trainer(FormerContract, nn.Module, ABC):
    """Define a learning rule: it fills `.grad` without a global backward pass, and all else is written once for all.

    A rule subclasses a family (`LocalTrainer`, `FeedbackTrainer`, `EstimatorTrainer`) or this class. What it owns
    next to the net (projections, feedback matrices) is a parameter or a buffer, so that it is moved, saved and resumed
    with the rest. A rule is final: a concrete one is not subclassed. Its `__init__` checks its options by their
    annotations (numbers are finite, a truth value is no number) and raises UserError; ranges are the rule's to check.
    A rule that localearn brings takes the options that its caller leaves out from its recipe for the net's kind, see
    `localearn.recipe`; its signature has the general values.

    Args:
        net: the net to train, which `supports` checks; stored as `self.net`.

    Attributes:
        net: the net that is trained.
        crosses_blocks: whether a gradient passes from one block to the one before it. False is a claim, and
            `localearn.testing` proves it.
        needs_derivatives: whether the blocks learn by the derivatives of their activations, so that a net of signs or
            spikes is refused, whose blocks would stay as they were drawn.
        autocasts: whether it computes under autocast where that is on. A rule that disables autocast needs a net of
            the data's own precision.
        is_local: whether block k learns from its input and the targets alone, whatever comes after it.
        couples_ranks: whether batch normalisation may take the statistics of all ranks' rows. Not where a rule learns
            from what its own perturbations do to its own rows' losses, for they would reach losses of ranks that it
            never sees.
        likes_channels_last: whether its steps on convolutions are no slower where maps lie channels last in memory.
        serves_pairs: whether it learns where a target is of a pair of rows, see `Task.of_pairs`.
        encodes_targets: whether it learns from targets in the output's space, `Task.encode`, so that it needs one of
            each output and refuses a task that has one for all of a row's positions, see `Task.pools_positions`.
        inference_seeds: seeds of the random draws of `predict` in evaluation, whatever the run's seed; empty where it
            draws nothing. Validation uses the first; the final figures are means over all, see `redraw`.

    Raises:
        Unsupported: when the rule cannot train the net.

    """

    crosses_blocks: ClassVar[bool] = False
    needs_derivatives: ClassVar[bool] = True
    autocasts: ClassVar[bool] = True
    is_local: ClassVar[bool] = False
    couples_ranks: ClassVar[bool] = True
    likes_channels_last: ClassVar[bool] = True
    serves_pairs: ClassVar[bool] = False
    encodes_targets: ClassVar[bool] = False
    inference_seeds: tuple[int, ...] = ()
    _fit: ClassVar[Fit]  # set by `register_fit`, when the loop is imported

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Make a rule's `__init__` complete its options by the recipe, and check them by its annotations."""
        super().__init_subclass__(**keywords)
        adapt(cls)
        if "__init__" in vars(cls):
            cls.__init__ = _completed(cls, checked(cls.__init__))

    def __init__(self, net: Net):
        super().__init__()
        self.supports(net)
        self.net = net

    @property
    def task(self) -> Task:
        """The task that the rule is trained for: the net's, which is the data's from when `fit` begins."""
        return self.net.task

    @task.setter
    def task(self, task: Task) -> None:
        self.check_task(task)
        self.net.task = task

    def check_task(self, task: Task) -> None:
        """Check that the rule, with the options that it has, can be trained for a task.

        A net or data that the rule cannot serve whatever its options is for `supports` to refuse, which knows the
        data's task.

        Args:
            task: the task to be trained for.

        Raises:
            Unsupported: when it cannot; the message says what to use instead.

        """
        _refuse_task(type(self), task)

    @classmethod
    def input_shape_for(cls, data: Data, kind: str) -> tuple[int, ...]:
        """Return the shape of the rows that a net is to take: the data's own, unless the rule adds to them.

        Code that builds a net for the rule calls this first.

        Args:
            data: the data to be learned.
            kind: `Net.kind` of the net to be built.

        """
        return tuple(data.input_shape)

    @classmethod
    def input_shape(cls, net: Net, data: Data) -> tuple[int, ...]:
        """Return the shape of the rows that such a net, which is built already, is to take.

        Args:
            net: a net of the kind and form in question.
            data: the data to be learned.

        """
        return cls.input_shape_for(data, kind_of(net))

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check that the rule can train this net (on these data).

        A rule that overrides it calls `super().supports(net, data)` first.

        Args:
            net: the net to be trained.
            data: the data to train on; None checks the net alone.

        Raises:
            Unsupported: when it cannot; the message says what would work.

        """
        if not isinstance(net, Net):
            makes = "; Net.from_sequential makes one of it" if isinstance(net, nn.Sequential) else ""
            raise Unsupported(f"{cls.__name__} trains a localearn.Net, not a {type(net).__name__}{makes}")
        if net.classes < 2 and net.task.has_classes and (data is None or data.task.has_classes):
            raise Unsupported(
                f"{type(net).__name__} has one class, so there is nothing to distinguish; give it 2 or more, or say "
                "that its output is a value: net.for_task(Regression())"
            )
        flat = next((type(m).__name__ for m in net.modules() if isinstance(m, FLAT)), None)
        if flat and cls.needs_derivatives:
            raise Unsupported(
                f"{cls.__name__} needs derivatives, and {flat}'s is zero everywhere, so no block would learn; use "
                "algo=likelihood_ratio or pepita, or another activation"
            )
        _refuse_task(cls, net.task if not isinstance(data, Data) else data.task)
        if data is None:
            return
        if not isinstance(data, Data):
            raise Unsupported(
                f"{cls.__name__} learns from a localearn.Data, say load('digits'), not a {type(data).__name__}"
            )
        if net.graph != (data.kind == "graph"):
            have, want = ("a graph net", "mlp or cnn") if net.graph else ("no graph net", "gcn, sage or gat")
            raise Unsupported(f"{data.name} is {data.kind} data and {type(net).__name__} is {have}; use net={want}")
        if net.takes.vocabulary != data.vocabulary:
            knows = {
                name: "values" if n is None else f"{n} tokens"
                for name, n in (("net", net.takes.vocabulary), ("data", data.vocabulary))
            }
            raise Unsupported(
                f"{type(net).__name__} takes {knows['net']}, and {data.name} has {knows['data']}; "
                + ("use net=transformer, gru or lstm" if data.vocabulary else "use net=mlp, or another for values")
            )
        if net.takes.categories != data.categories:
            has, takes = (
                f"{len(codes)} columns of codes ({', '.join(map(str, codes[:4]))}{', ...' if len(codes) > 4 else ''})"
                if codes
                else "values alone"
                for codes in (data.categories, net.takes.categories)
            )
            raise Unsupported(
                f"{data.name} has {has}, and {type(net).__name__} takes {takes}; use net=deepfm, which is built for "
                "them, or dataset.categories=onehot"
            )
        if net.input_shape not in (tuple(data.input_shape), cls.input_shape(net, data)):
            takes = f"{type(net).__name__} takes rows of shape {net.input_shape}"
            has = f"{data.name} has {tuple(data.input_shape)}"
            raise Unsupported(f"{takes}, and {has}; build the net for {cls.input_shape(net, data)}")
        if data.task.per_position and not net.positions:
            one = f"{type(net).__name__} has one output a row, and {data.name} a target at each position"
            fields = "" if data.vocabulary else ", or net=nerf"
            raise Unsupported(f"{one}; use net.reads=positions, of net=transformer, rnn, gru or lstm{fields}")
        if net.positions and not data.task.per_position:
            each = f"{type(net).__name__} has an output at each position, and {data.name} one target a row"
            raise Unsupported(f"{each}; use net.reads=last, or pooled (an MLP: row)")
        if data.continues and net.looks_ahead():
            raise Unsupported(
                f"{type(net).__name__} sees the tokens that {data.name} has it predict, which are in its input; "
                "use a causal one, net=transformer, rnn, gru or lstm"
            )
        if net.classes != data.task.outputs and not data.task.has_classes:
            has = f"{type(net).__name__} has {net.classes} outputs"
            raise Unsupported(f"{has}, and {data.name} needs {data.task.outputs}; build the net for as many")
        if net.classes != data.task.outputs:
            has = f"{type(net).__name__} has {net.classes} classes"
            raise Unsupported(f"{has}, and {data.name} {data.classes}; build the net for as many")

    @abstractmethod
    def gradients(self, batch: Batch) -> Parts:
        """Fill `.grad` of the parameters, None on entry, with the gradient of a batch mean.

        Nothing here waits for the device (no `.item()`, no branch on a tensor). It may be a generator, which yields
        such metrics: at each yield `.grad` is complete, and may be stepped and emptied before the
        generator goes on, so it must not be in the midst of a context such as `torch.no_grad()`. The loop steps once,
        at its end, unless a `Descent` or `step=block` says otherwise.

        Args:
            batch: rows x, (N, *input_shape), their context and their targets.

        Returns:
            Detached scalars by name, `loss` among them, or an iterator of such dicts.

        """

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` as `gradients` does, to the same bits, as an iterator that pauses where a block's are complete.

        It is for `step=block`, which steps and drops a gradient at each pause. A rule whose gradients come block by
        block overrides it; one that overrides `gradients` alone is stepped at the end.

        Args:
            batch: as in `gradients`.

        """
        return self.gradients(batch)

    def predict(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the (N, C) output that the task is measured by: logits for classification.

        Args:
            x: rows, (N, *input_shape).
            context: what the blocks take next to x, say a graph's edges, (2, E).

        """
        return self.net(x, *context)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state, of an earlier release too, whose names of tensors may have changed since.

        Args:
            state_dict: tensors by name.
            strict: as of `torch.nn.Module.load_state_dict`, whose result is returned.
            assign: likewise.

        """
        return super().load_state_dict(present_names(state_dict, self), strict, assign)

    def redraw(self, seed: int) -> None:
        """Make `predict` draw by another of `inference_seeds` from now on; do nothing where it draws nothing.

        Args:
            seed: one of `inference_seeds`.

        """

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_L, (N, *shapes[k]) each, as the prediction computes them: by default from x by the net.

        `python -m localearn.analyse` measures them. A rule whose `predict` gives the blocks something else, as labels
        in the input or lengths that are normalised, overrides it.

        Args:
            x: rows, (N, *input_shape).
            context: as in `predict`.

        """
        return self.net.outputs(x, *context)

    def phases(self) -> Sequence[Phase]:
        """Return the phases of training, in order: by default one, of all parameters at once, by `gradients`."""
        return [self.descent("all", self.parameters())]

    @property
    def net_predicts(self) -> bool:
        """Whether the net alone gives the output that the rule learns by: true unless `predict` is overridden.

        Where it does not, there is no gradient of the net's output for the rule's to be compared with.
        """
        return type(self).predict is Trainer.predict

    def path_angles(self) -> dict[str, Tensor]:
        """Return angles in degrees, by layer, between a weight and its stand-in in the backward pass.

        None by default; a rule that has such stand-ins overrides it.
        """
        return {}

    def pipelined(self) -> "Pipelined":
        """Return the rule as one whose blocks learn on different processes, activations going forward only.

        Raises:
            UserError: when its blocks cannot, with the reason and what would work.

        """
        raise UserError(f"{type(self).__name__} is not local: its blocks learn from what comes back; use parallel=data")

    def descent(self, name: str, parameters: Iterable[nn.Parameter], **options: Any) -> Descent:
        """Return the phase that learns by `gradients` and is measured by `predict`.

        Args:
            name: the phase's name.
            parameters: of which those are trained that require a gradient.
            options: `groups`, `steps` and `clipped` of `Descent`.

        """
        trained = tuple(p for p in parameters if p.requires_grad)
        parts = self.by_block if _defined_no_earlier(type(self), "by_block", "gradients") else None
        return Descent(name, trained, self.gradients, by_block=parts, predict=self.predict, **options)

    def fit(self, data: Any, epochs: int | None = None, **options: Any) -> Record:
        """Train on `data` and return the record of the run.

        Epochs and options that are left out come from the rule's recipe for this kind of net, see `localearn.recipe`.

        Args:
            data: as in `localearn.training.fit`.
            epochs: passes over the training set, 1 or more.
            options: those of `localearn.training.fit`.

        """
        if not hasattr(Trainer, "_fit"):
            registry.member("localearn", "fit")  # the loop's module registers it
        return Trainer._fit(self, data, **options if epochs is None else {"epochs": epochs, **options})


def register_fit(fit: F) -> F:
    """Make `Trainer.fit` call this function, and return it.

    The training loop knows the rules, and a rule knows nothing of the loop, so the loop registers itself.

    Args:
        fit: called with the trainer, the data and the options.

    """
    Trainer._fit = staticmethod(fit)
    return fit


def _completed(rule: type[Trainer], init: Callable[..., None]) -> Callable[..., None]:
    """Return a rule's constructor that takes what its caller leaves out from the recipe for the net's kind."""
    parameters = inspect.signature(init).parameters
    ordered = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]

    @functools.wraps(init)
    def completing(self: Trainer, *arguments: Any, **options: Any) -> None:
        passed = {**dict(zip(ordered, arguments, strict=False)), **options}
        if type(self) is rule:  # and not of a family, whose rule has chosen already
            task = getattr(passed.get("net"), "task", None)
            values = isinstance(task, Task) and not task.exclusive
            recipe = rule_options(rule, kind_of(passed.get("net")), values=values)
            options |= {name: value for name, value in recipe.items() if name not in passed}
        init(self, *arguments, **options)

    return completing


def _refuse_task(rule: type[Trainer], task: Task) -> None:
    """Raise `Unsupported` where a target is of two rows, or of many outputs, and the rule needs one of each."""
    if task.of_pairs and not rule.serves_pairs:
        raise Unsupported(
            f"{rule.__name__} needs a target of each row, and {task} has one of two; use algo=backprop, mono_forward, "
            "direct_feedback_alignment or forward_gnn"
        )
    if task.pools_positions and rule.encodes_targets:
        raise Unsupported(
            f"{rule.__name__} needs a target of each output, and {task} has one for all positions of a row; use "
            "algo=backprop, mono_forward, direct_feedback_alignment or shallow"
        )


class Pipelined(Protocol):
    """Describe a rule whose blocks learn one after another from activations that come forward, see `LocalTrainer`."""

    @property
    def chained(self) -> bool:
        """Whether block k + 1 learns from block k's output.

        If not, each learns from what `first_input` returns, which has nothing that learns.
        """
        ...

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the first block's input, and the losses of what learns from the net's input alone.

        Args:
            batch: the step's batch.

        """
        ...

    def learn_block(
        self, k: int, h: Tensor, batch: Batch, on_output: Callable[[Tensor], None] | None = None
    ) -> tuple[Tensor, Metrics]:
        """Fill `.grad` of block k, and return the next block's input and the block's metrics.

        Args:
            k: the block, 0..L-1.
            h: the block's input, a constant.
            batch: the step's batch, for its targets and context.
            on_output: called with the block's output before its gradient is taken.

        """
        ...

    def total(self, input_losses: Metrics, losses: Sequence[Tensor]) -> Tensor:
        """Return the sum, a scalar, of the losses that `first_input` reports and of some blocks' losses.

        Args:
            input_losses: the losses of `first_input`, by name.
            losses: the blocks' losses, scalars.

        """
        ...

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return the tensors that training block k changes.

        Args:
            k: the block, 0..L-1.

        """
        ...


def _defined_no_earlier(cls: type, name: str, other: str) -> bool:
    """Return whether the class that has one method is, or derives from, the class that has another."""
    return next(name in vars(base) for base in cls.__mro__ if name in vars(base) or other in vars(base))


def linear_readout(net: Net) -> str:
    """Return the advice to append to the message that a readout is no Linear, where an option of the net makes it one.

    Args:
        net: the net whose readout is refused.

    """
    return "; use net.readout=linear" if net.readout_takes_context else ""


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy, a scalar, over the labelled rows of a batch.

    It is `Classification.loss`, for rules that classify whatever their net is trained for.

    Args:
        logits: (N, C).
        batch: the batch, of which the labels are read.

    """
    return Classification(logits.shape[-1]).loss(logits, batch)


def output_error(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy and its derivative with respect to the logits.

        e = d loss / d logits = (softmax(logits) - Y) / M in the M labelled rows, and zero in the others

    Args:
        logits: (N, C).
        batch: the batch, of which the labels are read.

    Returns:
        The loss, a detached scalar, and e, (N, C).

    """
    return Classification(logits.shape[-1]).error(logits, batch)


def accumulate_grad(output: Tensor, delta: Tensor | None = None) -> None:
    """Add (d output / d theta)^T delta to the `.grad` of the parameters that made `output`.

    Where all of them are frozen there is nothing to add.

    Args:
        output: a tensor with its graph.
        delta: the error at the output, shaped as it; None: the output is a loss, a scalar, and delta is 1.

    """
    if output.requires_grad:
        torch.autograd.backward(output, delta)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
