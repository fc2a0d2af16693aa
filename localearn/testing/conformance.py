"""The suite that every rule passes, ours and a third party's."""

import copy
import inspect
import itertools
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import torch

from localearn.errors import Unsupported
from localearn.nets import Net
from localearn.testing import probes
from localearn.testing.toys import CLASSES, KINDS, toy
from localearn.trainers.base import Trainer
from localearn.trainers.local.base import LocalTrainer


class RuleConformance:
    """What a learning rule must do, as tests that a rule inherits.

    In a file that pytest collects:

        from localearn.testing import RuleConformance

        class TestMyRule(RuleConformance):
            def make(self, net):
                return MyRule(net)

    Without pytest, `check_rule(MyRule)` runs the same. What a rule claims stands in the class's attributes:

    kinds: the nets that it serves, of mlp, cnn, gcn, sage, gat. A kind left out must be refused by `supports`.
    precisions: of fp32 and bf16 (by autocast).
    draws_noise: whether its gradient is random; if not, copying every row of a batch must leave it as it is.
    local: whether block k's gradient is the same whatever stands after it; None: whether it is a `LocalTrainer`.
    sends_back_weights: whether an error comes back through later layers' weights, or their signs. A rule with
        `Trainer.crosses_blocks` does it by definition.
    steps, lr: of Adam, how long the rule learns its toy task. learns_to: the most that may be left of the loss, as a
        part of the loss that is left when the same rule trains everything but the blocks.

    Every test starts from fixed seeds and runs on the CPU. A test of a device stands on torch's `meta` device, which
    has no numbers: what reads one, or makes a tensor elsewhere, fails there as it would fail or wait on a GPU.
    """

    kinds: tuple[str, ...] = KINDS
    precisions: tuple[str, ...] = ("fp32", "bf16")
    draws_noise: bool = False
    local: bool | None = None
    sends_back_weights: bool = False
    steps: int = 60
    lr: float = 0.03
    learns_to: float = 0.5

    def make(self, net: Net) -> Trainer:
        """Build the rule on a net."""
        raise NotImplementedError("a conformance suite says how its rule is built: def make(self, net)")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run a test for every kind and precision that it asks for; pytest calls this."""
        for argument, values in (("kind", self.kinds), ("precision", self.precisions)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, values)

    def test_learns_in_its_blocks(self, kind: str, precision: str) -> None:
        """The loss falls, and well below where it gets with blocks that stay as they were drawn."""
        batch = toy(kind).batch
        before = probes.loss_of(self._made(kind), batch)
        left = {
            blocks: probes.loss_of(
                probes.train(self._made(kind), batch, self.steps, self.lr, precision, blocks=blocks), batch
            )
            for blocks in (True, False)
        }
        assert left[True] < before, f"the loss rose on the toy task from {before:.3f} to {left[True]:.3f}"
        limit = self.learns_to * left[False]
        assert left[True] < limit, (
            f"the blocks did not learn: loss {left[True]:.3f}, with untrained blocks {left[False]:.3f}; "
            f"it must be below {limit:.3f}"
        )

    def test_fills_gradients_and_returns_detached_scalars(self, kind: str, precision: str) -> None:
        """`.grad` of every stage parameter, finite and shaped as it, and of no other; weights and batch stay."""
        trainer, batch = self._made(kind), toy(kind).batch
        for stage, inputs in probes.staged(trainer, batch):
            trainer.zero_grad(set_to_none=True)
            values, x = [p.detach().clone() for p in trainer.parameters()], inputs.x.clone()
            with probes.autocast(precision):
                metrics = trainer.gradients(inputs)
            assert "loss" in metrics, "gradients() returns no 'loss'"
            for name, value in metrics.items():
                assert value.dim() == 0, f"{name} is no scalar: its shape is {tuple(value.shape)}"
                assert not value.requires_grad, f"{name} is not detached"
                assert value.isfinite(), f"{name} is {value}"
            for name, p in trainer.named_parameters():
                if not any(p is member for member in stage.parameters):
                    assert p.grad is None, f"{name} has a .grad, and stage {stage.name!r} does not train it"
                    continue
                assert p.grad is not None, f"{name} has no .grad in stage {stage.name!r}"
                assert p.grad.dtype == p.dtype and p.grad.shape == p.shape, f"{name}.grad is not shaped as {name}"
                assert p.grad.isfinite().all(), f"{name}.grad is not finite"
            same = all(torch.equal(p, value) for p, value in zip(trainer.parameters(), values, strict=True))
            assert same, "gradients() changed a parameter; the optimizer does that"
            assert torch.equal(inputs.x, x), "gradients() changed batch.x, which may be a view of the data set"

    def test_every_trained_parameter_moves(self, kind: str) -> None:
        """A few steps change every parameter of every stage, and no other."""
        trainer = self._made(kind)
        before = copy.deepcopy(dict(trainer.named_parameters()))
        trained = {id(p) for stage in trainer.stages() for p in stage.parameters}
        assert trained, "no stage has a parameter"
        probes.train(trainer, toy(kind).batch, 3, self.lr)
        for name, p in trainer.named_parameters():
            moved = not torch.equal(p, before[name])
            assert moved == (id(p) in trained), f"{name} {'moved' if moved else 'did not move'}"

    def test_repeats_bit_for_bit(self, kind: str) -> None:
        """Two runs from the same seed end with the same weights."""
        runs = [probes.train(self._made(kind), toy(kind).batch, 5, self.lr).state_dict() for _ in range(2)]
        assert not probes.differing(*runs), f"seeded runs differ in {probes.differing(*runs)}"

    def test_no_gradient_crosses_a_block(self, kind: str) -> None:
        """The graph of block k ends at its input, and no later weight is read on the way back (nor at all, if local).

        A rule that says `crosses_blocks` is held to that too.
        """
        trainer, batch = self._made(kind), toy(kind).batch
        with probes.block_inputs(trainer) as crossed:
            for _, inputs in probes.staged(trainer, batch):
                trainer.gradients(inputs)
        if trainer.crosses_blocks:
            assert crossed, "crosses_blocks is set, and no gradient crosses a block: take it away"
            return
        assert not crossed, f"a gradient can pass through the input of {', '.join(sorted(set(crossed)))}"
        if self.sends_back_weights:
            return
        local = isinstance(trainer, LocalTrainer) if self.local is None else self.local
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
        """Every row twice gives the same gradient, to rounding in float64; a rule that draws noise says so."""
        batch = probes.moved(toy(kind).batch, dtype=torch.float64)
        trainer = self._made(kind).double()
        once, again = probes.gradients_of(trainer, batch), probes.gradients_of(trainer, batch, seed=1)
        if self.draws_noise:
            assert probes.differing(once, again), "draws_noise is set, and two seeds give the same gradient"
            return
        assert not probes.differing(once, again), "two seeds give two gradients: set draws_noise"
        twice = probes.gradients_of(trainer, probes.doubled(batch))
        for name, grad in once.items():
            close = torch.allclose(twice[name], grad, rtol=1e-9, atol=1e-12)
            assert close, f"{name}: another gradient where every row of the batch stands twice"

    def test_keeps_the_dtype(self, kind: str) -> None:
        """A rule made float64 is trained and scores in float64."""
        trainer, batch = self._made(kind).double(), probes.moved(toy(kind).batch, dtype=torch.float64)
        for name, grad in probes.gradients_of(trainer, batch).items():
            assert grad.dtype == torch.float64, f"{name}.grad is {grad.dtype} in a float64 net"
        assert probes.scored(trainer, batch).dtype == torch.float64, "scores are not float64 in a float64 net"

    def test_keeps_the_device_and_never_waits_for_it(self, kind: str) -> None:
        """Gradients and scores on a device other than the default: nothing is made elsewhere, and nothing is read."""
        batch = probes.moved(toy(kind).batch, "meta")
        net = toy(kind).net().to("meta")
        try:
            net(batch.x, *batch.context)
        except NotImplementedError as error:
            raise unittest.SkipTest(f"the {kind} layers themselves read from the device: {error}"[:120]) from None
        trainer = self._made(kind).to("meta")
        for stage, inputs in probes.staged(trainer, batch):
            trainer.zero_grad(set_to_none=True)
            metrics = trainer.gradients(inputs)
            assert all(value.is_meta for value in metrics.values()), "a metric has left the device"
            assert all(p.grad is not None and p.grad.is_meta for p in stage.parameters), "a .grad has left the device"
        assert probes.scored(trainer, batch).is_meta, "the scores have left the device"

    def test_state_dict_round_trips(self, kind: str) -> None:
        """Loaded into a rule drawn from another seed, the state gives the same scores and the same gradients."""
        batch = toy(kind).batch
        trained, fresh = probes.train(self._made(kind), batch, 3, self.lr), self._made(kind, seed=1)
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(probes.scored(trained, batch), probes.scored(fresh, batch)), "scores differ after loading"
        moved = probes.differing(probes.gradients_of(trained, batch), probes.gradients_of(fresh, batch))
        assert not moved, f"the gradients of {', '.join(moved)} depend on something that the state does not hold"

    def test_scores_and_leaves_modes_alone(self, kind: str) -> None:
        """Scores are (N, C) and change nothing; neither they nor gradients leave another mode behind."""
        trainer, batch = self._made(kind), toy(kind).batch
        for _, inputs in probes.staged(trainer, batch):
            modes = [module.training for module in trainer.modules()]
            trainer.gradients(inputs)
            assert modes == [module.training for module in trainer.modules()], "gradients() left another mode behind"
            trainer.eval()
            state = copy.deepcopy(trainer.state_dict())
            with torch.no_grad():
                scores = trainer.stage_scores(inputs.x, *inputs.context)
            assert not any(module.training for module in trainer.modules()), "scores left training mode behind"
            assert scores.shape == (len(batch.x), CLASSES), f"the scores' shape is {tuple(scores.shape)}"
            assert not probes.differing(state, trainer.state_dict()), "scoring changed the rule's state"
            trainer.train()
        assert probes.scored(trainer, batch).shape == (len(batch.y), CLASSES), "the whole net's scores are not (N, C)"

    def test_supports_its_kinds_and_refuses_the_rest(self) -> None:
        """A kind in `kinds` is served; others, and data that do not fit the net, are refused with their names."""
        for kind in KINDS:
            net = toy(kind).net()
            if kind in self.kinds:
                type(self.make(net)).supports(net, toy(kind).data)
                misfits = [toy(other) for other in KINDS if toy(other).data.kind != toy(kind).data.kind]
                for misfit in misfits:
                    message = _refusal(lambda net=net, data=misfit.data: type(self.make(net)).supports(net, data))
                    names = (type(net).__name__, misfit.data.name)
                    assert message, f"supports accepts {misfit.data.name} for {names[0]}"
                    assert all(name in message for name in names), f"{message!r} does not name {' and '.join(names)}"
            else:
                message = _refusal(lambda net=net: self.make(net))
                assert message, f"{kind} is not among kinds, and supports accepts it: add it, or refuse it"
                assert type(net).__name__ in message, f"{message!r} does not name {type(net).__name__}"

    def _made(self, kind: str, seed: int = 0) -> Trainer:
        torch.manual_seed(seed)
        return self.make(toy(kind).net())


def check_rule(make: Callable[[Net], Trainer], **claims: Any) -> list[str]:
    """Run `RuleConformance` on the rule that `make(net)` builds, without pytest; return the names of the checks.

    claims: the suite's attributes, say kinds=("mlp",), draws_noise=True. Raises AssertionError at the first failure.
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
    choices = {"kind": suite.kinds, "precision": suite.precisions}
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
