"""The conformance suite that every rule passes, ours and a third party's, and the same without pytest."""

import copy
import inspect
import itertools
import re
import unittest
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.errors import Unsupported
from localearn.nets import Net
from localearn.testing import probes
from localearn.testing.toys import KINDS, TASKS, Toy, toy
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase, Solve


class RuleConformance:
    """The requirements on a learning rule, as tests that a rule's own suite inherits.

    In a file that pytest collects:

        from localearn.testing import RuleConformance

        class TestMyRule(RuleConformance):
            def make(self, net):
                return MyRule(net)

    Without pytest, `check_rule(MyRule)` runs the same. A rule's claims are the class's attributes.

    The net is built for `Trainer.input_shape`, as a run builds it. Every test starts from fixed seeds and runs on the
    CPU. A test of a device uses torch's `meta` device, which has no numbers: code that reads one, or makes a tensor
    elsewhere, fails there as it would fail or wait on a GPU.

    Attributes:
        kinds: the nets that it serves, of `localearn.testing.KINDS`: mlp, cnn, gcn, sage, gat, transformer, recurrent,
            vit, mixer, resnet, mobilenet, deepfm (a table whose first columns are codes), and those that others have
            registered. A kind left out must be refused by `supports`.
        tasks: of `localearn.testing.TASKS`: classes, values (a regression), multilabel, tokens (a language model), and
            autoencoding, each by a net of the kind that its toy says (`Toy.on`), where the rule serves that. One left
            out must be refused, by `supports` or `check_task`, with what would work instead.
        runs_on: of what is served, where the tests run; None: on all of it. What is left out here is not refused: it is
            for a second suite of a rule, with another option, that need not be seen on everything.
        own: of nets that no other rule has, their toys by kind. They are served in addition to `kinds`, and asked of no
            other rule.
        precisions: of fp32 and bf16 (by autocast).
        learns_on: of what is served, by precision, where `test_learns_its_task` runs unless all is asked for; a
            precision that is not named: on all of it. What is left over is marked `slow`, which pytest leaves out by
            `-m "not slow"`.
        by_default: of what is served, where the tests run unless all is asked for, say kinds that together run every
            line and branch of the rule; None: on all of it. What is left over is marked `slow`, as of `learns_on`.
        draws_noise: whether its gradient is random; if not, copying every row of a batch must leave it as it is.
        local: whether block k's gradient is the same whatever stands after it; None: as `Trainer.is_local` says.
        sends_back_weights: whether an error comes back through later layers' weights, or their signs. A rule with
            `Trainer.crosses_blocks` does it by definition.
        trains_blocks: whether a phase trains the blocks. If not, the blocks' parameters must stay as they were drawn.
        judged_by: "loss", the task's of the scores, or "errors", the share of rows whose largest score is not their
            label's: of a rule whose scores are no logits, so that their cross-entropy says little.
        steps: of Adam, for how many the rule learns its toy task, where it has steps.
        lr: Adam's learning rate in them.
        learns_to: the most that may be left of the loss or the errors, as a part of what is left when the same rule
            trains everything but the blocks; of what chance leaves, where it trains no blocks.
        by_kind: the values that `draws_noise`, `judged_by`, `steps`, `lr` and `learns_to` have instead on a kind of net
            or of task: {"vit": {"steps": 200}}.

    """

    kinds: Collection[str] = KINDS
    tasks: Collection[str] = TASKS
    runs_on: Collection[str] | None = None
    own: Mapping[str, Callable[[], Toy]] = {}
    precisions: tuple[str, ...] = ("fp32", "bf16")
    learns_on: Mapping[str, Collection[str]] = {"bf16": ("mlp", "tokens")}
    by_default: Collection[str] | None = None
    draws_noise: bool = False
    local: bool | None = None
    sends_back_weights: bool = False
    trains_blocks: bool = True
    judged_by: Literal["loss", "errors"] = "loss"
    steps: int = 60
    lr: float = 0.03
    learns_to: float = 0.5
    by_kind: Mapping[str, Mapping[str, Any]] = {}

    def make(self, net: Net) -> Trainer:
        """Build the rule on a net.

        Args:
            net: a small net of one of the kinds.

        """
        raise NotImplementedError("a conformance suite says how its rule is built: def make(self, net)")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Parametrize a test by every kind and precision that it asks for; pytest calls this.

        Args:
            metafunc: pytest's.

        """
        import pytest

        metafunc.config.addinivalue_line("markers", "slow: what a faster test proves already, on more kinds of net")
        name = metafunc.function.__name__
        asked = [argument for argument in ("kind", "precision") if argument in metafunc.fixturenames]
        if asked:
            found = [tuple(values.values()) for case, values in _cases(self) if case == name]
            marks = [() if self._in_short(name, *values) else pytest.mark.slow for values in found]
            cases = zip(found, marks, strict=True)
            metafunc.parametrize(asked, [pytest.param(*values, marks=mark) for values, mark in cases])

    def _in_short(self, name: str, kind: str, precision: str = "") -> bool:
        """Return whether a test of that name runs where not all is asked for."""
        where = self.learns_on.get(precision) if name == "test_learns_its_task" else None
        return all(kinds is None or kind in kinds for kinds in (self.by_default, where))

    def test_learns_its_task(self, kind: str, precision: str) -> None:
        """Require a loss that falls well below that of untrained blocks, or below chance."""
        batch = self._toy(kind).batch
        judged_by = self._claim("judged_by", kind) if self._toy(kind).data.task.exclusive else "loss"
        judge = {"loss": probes.loss_of, "errors": probes.errors_of}[judged_by]
        learn = self._claim("steps", kind), self._lr(kind), precision
        before = judge(self._made(kind), batch)
        after = judge(probes.train(self._made(kind), batch, *learn), batch)
        assert after < before, f"the {judged_by} rose on the toy task from {before:.3f} to {after:.3f}"
        if self.trains_blocks:
            held = probes.train(self._made(kind), batch, *learn, blocks=False)
            without, what = judge(held, batch), "with untrained blocks"
        else:
            without, what = probes.chance(judged_by, self._toy(kind).data.task, batch), "by chance"
        limit = self._claim("learns_to", kind) * without
        assert after < limit, (
            f"the rule did not learn: {judged_by} {after:.3f}, {what} {without:.3f}; it must be below {limit:.3f}"
        )

    def test_fills_gradients_or_solves(self, kind: str, precision: str) -> None:
        """Require `check_gradients` of a `Descent`, and `check_solve` of a `Solve`."""
        trainer, batch = self._made(kind), self._toy(kind).batch
        for phase, inputs in probes.phased(trainer, batch):
            if isinstance(phase, Solve):
                check_solve(trainer, phase, inputs, precision)
            else:
                check_gradients(trainer, phase, inputs, precision)

    def test_every_trained_parameter_moves(self, kind: str) -> None:
        """Require that a few steps, or its one pass, change every parameter of every phase, and no other.

        Of the blocks' parameters there are some among them, or none, as the suite's `trains_blocks` says.
        """
        trainer = self._made(kind)
        before = copy.deepcopy(dict(trainer.named_parameters()))
        trained = {id(p) for phase in trainer.phases() for p in phase.parameters}
        assert trained, "no phase has a parameter"
        of_blocks = any(id(p) in trained for p in trainer.net.blocks.parameters())
        assert of_blocks == self.trains_blocks, f"trains_blocks is {self.trains_blocks}, and the phases say otherwise"
        probes.train(trainer, self._toy(kind).batch, 3, self._lr(kind))
        for name, p in trainer.named_parameters():
            moved = not torch.equal(p, before[name])
            assert moved == (id(p) in trained), f"{name} {'moved' if moved else 'did not move'}"

    def test_repeats_bit_for_bit(self, kind: str) -> None:
        """Require that two runs from the same seed end with the same weights."""
        runs = [probes.train(self._made(kind), self._toy(kind).batch, 5, self._lr(kind)).state_dict() for _ in range(2)]
        assert not probes.differing(*runs), f"seeded runs differ in {probes.differing(*runs)}"

    def test_no_gradient_crosses_a_block(self, kind: str) -> None:
        """Require that block k's graph ends at its input, and that its gradient reads no later weight on the way back.

        If the rule is local, no later weight is read at all. A rule that says `crosses_blocks` is held to that too.
        """
        trainer, batch = self._made(kind), self._toy(kind).batch
        with probes.block_inputs(trainer) as crossed:
            for phase, inputs in probes.phased(trainer, batch):
                probes.learn(phase, inputs)
        if trainer.crosses_blocks:
            assert crossed, "crosses_blocks is set, and no gradient crosses a block: take it away"
            return
        assert not crossed, f"a gradient can pass through the input of {', '.join(sorted(set(crossed)))}"
        if self.sends_back_weights:
            return
        local = trainer.is_local if self.local is None else self.local
        plain = probes.gradients_of(trainer, batch)
        for k in range(trainer.net.depth):
            # The readout of a local rule is its last block's own head.
            later = probes.parameters_after(trainer, k, readout=not local or k < trainer.net.depth - 1)
            changed = [probes.gradients_of(trainer, batch, then_change=later)]
            if local:
                changed.append(probes.gradients_of(_with_changed(trainer, later), batch))
            for other in changed:
                moved = probes.differing(probes.of_block(plain, k), probes.of_block(other, k))
                assert not moved, f"later weights are read for the gradients of {', '.join(moved)}"

    def test_gradient_is_of_the_batch_mean(self, kind: str) -> None:
        """Require the same gradient from every row twice, to rounding in float64; a rule that draws noise says so.

        So does a `Solve`'s solution, which is also the same whether the rows come in one batch or in two.
        """
        batch = probes.moved(self._toy(kind).batch, dtype=torch.float64)
        trainer = self._made(kind).double()
        once, again = probes.learned_from(trainer, batch), probes.learned_from(trainer, batch, seed=1)
        if self._claim("draws_noise", kind):
            assert probes.differing(once, again), "draws_noise is set, and two seeds give the same gradient"
            return
        assert not probes.differing(once, again), "two seeds give two gradients: set draws_noise"
        others = {
            "every row of the batch stands twice": probes.learned_from(trainer, probes.doubled(batch)),
            "the rows come in two batches": probes.solutions_of(trainer, batch, parts=2),
        }
        for where, other in others.items():
            for name, value in other.items():
                close = torch.allclose(value, once[name], rtol=1e-9, atol=1e-12)
                assert close, f"{name}: another gradient or solution where {where}"

    def test_padding_says_nothing(self) -> None:
        """Require that rows of padding alone leave gradients and solutions as they are, to rounding in float64.

        Not those of a rule that draws noise, which differs with the number of rows.
        """
        for kind in self._served():
            batch = probes.moved(self._toy(kind).batch, dtype=torch.float64)
            if self._toy(kind).data.task.counted(batch.target) is None or self._claim("draws_noise", kind):
                continue
            trainer = self._made(kind).double()
            once, padded = probes.learned_from(trainer, batch), probes.learned_from(trainer, probes.padded(batch))
            for name, value in once.items():
                close = torch.allclose(padded[name], value, rtol=1e-9, atol=1e-12)
                assert close, f"{name}: another gradient or solution where rows of padding are added"

    def test_keeps_the_dtype(self, kind: str) -> None:
        """Require that a rule made float64 is trained and scores in float64."""
        trainer, batch = self._made(kind).double(), probes.moved(self._toy(kind).batch, dtype=torch.float64)
        for name, value in probes.learned_from(trainer, batch).items():
            assert value.dtype == torch.float64, f"{name}: {value.dtype} is learned in a float64 net"
        assert probes.scored(trainer, batch).dtype == torch.float64, "scores are not float64 in a float64 net"

    def test_keeps_the_device_and_never_waits_for_it(self, kind: str) -> None:
        """Require gradients and scores on a device other than the default: no tensor is made elsewhere, or read.

        Nor is one in `accumulate`; `solve`, once in a phase, may read whether there is a solution.
        """
        batch = probes.moved(self._toy(kind).batch, "meta")
        net = self._toy(kind).net().to("meta")
        try:
            net(batch.x, *batch.context)
        except NotImplementedError as error:
            raise unittest.SkipTest(f"the {kind} layers themselves read from the device: {error}"[:120]) from None
        trainer = self._made(kind).to("meta")
        for phase, inputs in probes.phased(trainer, batch):
            if isinstance(phase, Solve):
                with torch.no_grad():
                    phase.accumulate(inputs)
                continue
            trainer.zero_grad(set_to_none=True)
            metrics = probes.learn(phase, inputs)
            assert all(value.is_meta for value in metrics.values()), "a metric has left the device"
            assert all(p.grad is not None and p.grad.is_meta for p in phase.parameters), "a .grad has left the device"
        assert probes.scored(trainer, batch).is_meta, "the scores have left the device"

    def test_state_dict_round_trips(self, kind: str) -> None:
        """Require the same scores, gradients and solutions of a rule drawn from another seed with the state loaded."""
        batch = self._toy(kind).batch
        trained, fresh = probes.train(self._made(kind), batch, 3, self._lr(kind)), self._made(kind, seed=1)
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(probes.scored(trained, batch), probes.scored(fresh, batch)), "scores differ after loading"
        moved = probes.differing(probes.learned_from(trained, batch), probes.learned_from(fresh, batch))
        assert not moved, f"what {', '.join(moved)} learn depends on something that the state does not hold"

    def test_scores_and_leaves_modes_alone(self, kind: str) -> None:
        """Require scores (N, C), or (N, T, C), that change nothing; nor may learning leave another mode behind."""
        trainer, batch = self._made(kind), self._toy(kind).batch
        positions = tuple(batch.x.shape[1:2]) if trainer.net.view.per_position else ()
        expected = (*positions, trainer.net.classes)
        for phase, inputs in probes.phased(trainer, batch):
            modes = [module.training for module in trainer.modules()]
            probes.learn(phase, inputs)
            assert modes == [module.training for module in trainer.modules()], "learning left another mode behind"
            trainer.eval()
            state = copy.deepcopy(trainer.state_dict())
            with torch.no_grad():
                scores = phase.predict(inputs.x, *inputs.context)
            assert not any(module.training for module in trainer.modules()), "scores left training mode behind"
            assert scores.shape == (len(batch.x), *expected), f"the scores' shape is {tuple(scores.shape)}"
            assert not probes.differing(state, trainer.state_dict()), "scoring changed the rule's state"
            trainer.train()
        shape = probes.scored(trainer, batch).shape
        assert shape == (len(batch.target), *expected), f"the whole net's scores are {tuple(shape)}, not (N, C)"

    def test_supports_its_kinds_and_refuses_the_rest(self) -> None:
        """Require that kinds in `kinds` are served; others, and data that do not fit the net, are refused by name."""
        for kind in (*KINDS, *self.own):
            if kind in self.kinds or kind in self.own:
                trainer = self._made(kind)
                net = trainer.net
                trainer.supports(net, self._toy(kind).data)
                misfits = [toy(other) for other in KINDS if toy(other).data.kind != self._toy(kind).data.kind]
                for misfit in misfits:
                    message = _refusal(lambda rule=trainer, data=misfit.data: rule.supports(rule.net, data))
                    names = (type(net).__name__, misfit.data.name)
                    assert message, f"supports accepts {misfit.data.name} for {names[0]}"
                    assert all(name in message for name in names), f"{message!r} does not name {' and '.join(names)}"
            else:
                net = self._toy(kind).net()
                message = _refusal(lambda net=net: self.make(net))
                assert message, f"{kind} is not among kinds, and supports accepts it: add it, or refuse it"
                assert type(net).__name__ in message, f"{message!r} does not name {type(net).__name__}"

    def test_supports_its_tasks_and_refuses_the_rest(self) -> None:
        """Require that a task is served, and its net refuses data of another; or is refused, with an alternative."""
        for task in TASKS:
            if task != "classes" and toy(task).on in self.kinds:
                self._check_task(task)

    def _check_task(self, task: str) -> None:
        if task not in self.tasks:
            net = toy(task).net()
            message = _refusal(lambda: self.make(net).check_task(net.task))
            assert message, f"{task} is not among tasks, and supports accepts it: add it, or refuse it"
            assert re.search(r"\buse \w+", message), f"{message!r} does not say what to use instead"
            return
        for kind, other in ((task, toy(task).on), (toy(task).on, task)):
            trainer = self._made(kind)
            trainer.supports(trainer.net, self._toy(kind).data)
            misfit = self._toy(other).data
            message = _refusal(lambda rule=trainer, data=misfit: rule.supports(rule.net, data))
            assert misfit.name in message, f"supports accepts {misfit.name} for {type(trainer.net).__name__} of {kind}"

    def _served(self) -> tuple[str, ...]:
        """Return the toys to run on: the kinds of net served, and the tasks by nets of such kinds."""
        tasks = (task for task in TASKS if task in self.tasks and task != "classes")
        served = (*self.kinds, *self.own, *(task for task in tasks if toy(task).on in self.kinds))
        return tuple(kind for kind in served if self.runs_on is None or kind in self.runs_on)

    def _toy(self, kind: str) -> Toy:
        return self.own[kind]() if kind in self.own else toy(kind)

    def _claim(self, name: str, kind: str) -> Any:
        """Return what the suite claims on a kind of net or of task."""
        return self.by_kind.get(kind, {}).get(name, getattr(self, name))

    def _lr(self, kind: str) -> float:
        return self._claim("lr", kind) * self._toy(kind).pace

    def _made(self, kind: str, seed: int = 0) -> Trainer:
        torch.manual_seed(seed)
        task = self._toy(kind)
        trainer = self.make(task.net())
        shape = trainer.input_shape(trainer.net, task.data)
        if shape == trainer.net.input_shape:
            return trainer
        torch.manual_seed(seed)
        return self.make(task.net(shape))


def check_rule(make: Callable[[Net], Trainer], **claims: Any) -> list[str]:
    """Run `RuleConformance` on a rule, without pytest; return the names of the checks.

    Args:
        make: builds the rule on a net.
        claims: the suite's attributes, say kinds=("mlp",), draws_noise=True.

    Raises:
        AssertionError: at the first failure.

    """
    suite = type("Rule", (RuleConformance,), {"make": lambda self, net: make(net), **claims})()
    done = []
    with torch.random.fork_rng(devices=[]):
        for name, arguments in _cases(suite):
            done.append(f"{name}[{'-'.join(arguments.values())}]")
            try:
                getattr(suite, name)(**arguments)
            except unittest.SkipTest:
                done.pop()
            except Exception as error:
                raise AssertionError(f"{done[-1]}: {error}") from error
    return done


def _cases(suite: RuleConformance) -> Iterator[tuple[str, dict[str, str]]]:
    choices = {"kind": suite._served(), "precision": suite.precisions}
    for name in [name for name in dir(suite) if name.startswith("test_")]:
        asked = [argument for argument in choices if argument in inspect.signature(getattr(suite, name)).parameters]
        for values in itertools.product(*(choices[argument] for argument in asked)):
            yield name, dict(zip(asked, values, strict=True))


@torch.no_grad()
def _with_changed(trainer: Trainer, names: list[str]) -> Trainer:
    other = copy.deepcopy(trainer)
    for name in names:
        other.get_parameter(name).add_(1)
    return other


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except Unsupported as refusal:
        return str(refusal)
    return ""


def check_gradients(trainer: Trainer, phase: Phase, batch: Batch, precision: str) -> None:
    """Check that `gradients` fills `.grad` of every parameter of the phase, finite and shaped as it, and of no other.

    Weights and batch stay, and the metrics are detached scalars, `loss` among them.

    Args:
        trainer: the rule.
        phase: one of its phases, begun.
        batch: a batch whose x is the phase's input.
        precision: fp32 or bf16.

    Raises:
        AssertionError: when any of this is not so.

    """
    trainer.zero_grad(set_to_none=True)
    values, x = _values(trainer), batch.x.clone()
    with probes.autocast(precision):
        metrics = probes.learn(phase, batch)
    _check_metrics("gradients", metrics)
    for name, p in trainer.named_parameters():
        if not _trains(phase, p):
            assert p.grad is None, f"{name} has a .grad, and phase {phase.name!r} does not train it"
            continue
        assert p.grad is not None, f"{name} has no .grad in phase {phase.name!r}"
        assert p.grad.dtype == p.dtype and p.grad.shape == p.shape, f"{name}.grad is not shaped as {name}"
        assert p.grad.isfinite().all(), f"{name}.grad is not finite"
    assert not probes.differing(values, _values(trainer)), "gradients() changed a parameter; the optimizer does that"
    assert torch.equal(batch.x, x), "gradients() changed batch.x, which may be a view of the data set"


def check_solve(trainer: Trainer, phase: Solve, batch: Batch, precision: str) -> None:
    """Check that `accumulate` only sums up and `solve` sets the phase's parameters from that alone.

    They are finite then, no other parameter has changed, there is no `.grad`, and no sum outlasts the pass. The metrics
    are those of `check_gradients`.

    Args:
        trainer: the rule.
        phase: one of its phases, begun.
        batch: a batch whose x is the phase's input.
        precision: fp32 or bf16.

    Raises:
        AssertionError: when any of this is not so.

    """
    trainer.zero_grad(set_to_none=True)
    values, x, keys = _values(trainer), batch.x.clone(), trainer.state_dict().keys()
    with torch.no_grad(), probes.autocast(precision):
        phase.accumulate(batch)
        assert not probes.differing(values, _values(trainer)), "accumulate() changed a parameter; solve() does that"
        assert trainer.state_dict().keys() == keys, "what is summed is no part of the state, which a pass would enlarge"
        metrics = phase.solve()
    _check_metrics("solve", metrics)
    solution = _values(trainer)
    for name, p in trainer.named_parameters():
        assert p.grad is None, f"{name} has a .grad, and phase {phase.name!r} is solved in one pass"
        assert p.isfinite().all(), f"{name} is not finite"
        assert _trains(phase, p) or torch.equal(p, values[name]), f"phase {phase.name!r} changed {name}, not its own"
    assert torch.equal(batch.x, x), "accumulate() changed batch.x, which may be a view of the data set"
    with probes.autocast(precision):
        probes.solve(phase, batch)
    again = probes.differing(solution, _values(trainer))
    assert not again, f"a second pass ends with another {', '.join(again)}: solve() drops the sums"


def _check_metrics(source: str, metrics: dict[str, Tensor]) -> None:
    assert "loss" in metrics, f"{source}() returns no 'loss'"
    for name, value in metrics.items():
        assert value.dim() == 0, f"{name} is no scalar: its shape is {tuple(value.shape)}"
        assert not value.requires_grad, f"{name} is not detached"
        assert value.isfinite(), f"{name} is {value}"


def _values(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.named_parameters()}


def _trains(phase: Phase, parameter: Tensor) -> bool:
    return any(parameter is member for member in phase.parameters)
