"""The former contract of a rule, deprecated: `Stage`, `stages`, `enter`, `scores`, ... The next release drops it.

A rule that is written in it trains as before: `adapt` gives its class the methods of the present contract, which call
those that the class has, and warns.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import UserError
from localearn.trainers.phases import Descent, Parts, Phase, Solve

STAGES = ("stages", "stage_input", "stage_scores", "enter")
PRESENT = (
    "phases() returns a localearn.trainers.Descent or Solve for each, which knows its input (features=), its "
    "predictions (predict=) and what it freezes (frozen=)"
)


@dataclass(frozen=True)
class Stage:
    """A part of training in the former contract, deprecated: return a `Descent` or a `Solve` from `phases()`.

    Attributes:
        name: the phase's name.
        parameters: the parameters that it trains.
        start: the block, 0..L-1, whose input is the phase's; 0: x itself.
        one_pass: whether it is a `Solve`.
        groups: as in `Descent`.
        input_width: `width` of `Phase`.

    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    start: int = 0
    one_pass: bool = False
    groups: tuple[dict[str, Any], ...] = ()
    input_width: int | None = None

    def __post_init__(self) -> None:
        _warn(f"Stage is deprecated: {PRESENT}", 4)


class _Quiet(Stage):
    def __post_init__(self) -> None:
        pass


class FormerContract:
    """The methods of the former contract that a rule may call, itself or by `super()`; each warns."""

    stage: int = 0

    def scores(self: Any, x: Tensor, *context: Tensor) -> Tensor:
        """Return `predict(x, *context)`, of which this is the former name."""
        _warn("scores() is deprecated: call predict()")
        return _present(self, "predict")(x, *context)

    def stages(self: Any) -> list[Stage]:
        """Return the phases as stages, deprecated."""
        _warn(f"stages() is deprecated: {PRESENT}")
        return [_as_stage(self, phase) for phase in _present(self, "phases")()]

    def enter(self: Any, stage: int) -> None:
        """Begin a stage, deprecated."""
        _warn("enter() is deprecated: a phase is an object, trainer.phases()[k], with input, predict, gradients, ...")
        if not _is_adapted(type(self), "phases") and len(self.phases()) > 1:
            raise UserError(
                f"{type(self).__name__} trains phases that are objects; use phase = trainer.phases()[{stage}], "
                "trainer.train(), phase.freeze(), phase.gradients(batch)"
            )
        self.stage = stage

    def stage_input(self: Any, x: Tensor, *context: Tensor) -> Tensor:
        """Return the present phase's `input(x, *context)`, deprecated."""
        _warn("stage_input() is deprecated: call phase.input()")
        return _inherited(self).input(x, *context)

    def stage_scores(self: Any, h: Tensor, *context: Tensor) -> Tensor:
        """Return the present phase's `predict(h, *context)`, deprecated."""
        _warn("stage_scores() is deprecated: call phase.predict()")
        return _inherited(self).predict(h, *context)


def adapt(cls: type[Any]) -> None:
    """Give a class that overrides methods of the former contract those of the present one, with a warning.

    Args:
        cls: the rule's class, just defined.

    """
    own = vars(cls)
    if "scores" in own and "predict" not in own:
        _warn(f"{cls.__name__}.scores is deprecated: name it predict", 4)
        cls.predict = _marked(lambda self, x, *context: self.scores(x, *context))
    old = [name for name in STAGES if name in own]
    if old and "phases" not in own:
        _warn(f"{cls.__name__}.{', '.join(old)}: deprecated; {PRESENT}", 4)
        cls.phases = _marked(_phases)


def _phases(trainer: Any) -> list[Phase]:
    stages = trainer.stages() if _overrides(trainer, "stages") else [_as_stage(trainer, p) for p in _own(trainer)]
    return [(_FormerSolve if stage.one_pass else _FormerDescent)(trainer, k, stage) for k, stage in enumerate(stages)]


class _Entered:
    """The stage of a rule as a phase; every call enters the stage first."""

    def __init__(self, trainer: Any, index: int, stage: Stage):
        self.trainer, self.index, self.stage = trainer, index, stage
        self.own = next((p for p in _own(trainer)[index : index + 1] if p.name == stage.name), None)

    @property
    def width(self) -> int | None:
        if not self.stage.start:
            return None
        return self.stage.input_width or math.prod(self.trainer.net.shapes[self.stage.start - 1])

    def enter(self) -> Any:
        if vars(self.trainer).get("_entered") != self.index:
            self.trainer._entered = self.index
            self.trainer.stage = self.index
            if _overrides(self.trainer, "enter"):
                self.trainer.enter(self.index)
        return self.trainer

    def input(self, x: Tensor, *context: Tensor) -> Tensor:
        trainer = self.enter()
        if _overrides(trainer, "stage_input"):
            return trainer.stage_input(x, *context)
        return x if self.own is None else self.own.input(x, *context)

    def predict(self, h: Tensor, *context: Tensor) -> Tensor:
        trainer = self.enter()
        h = h if self.stage.start else self.input(h, *context)
        if _overrides(trainer, "stage_scores"):
            return trainer.stage_scores(h, *context)
        return trainer.predict(h, *context) if self.own is None else self.own.predict(h, *context)

    def gradients(self, batch: Batch) -> Parts:
        trainer = self.enter()
        if isinstance(self.own, Descent) and not _overridden_since(type(trainer), "gradients", "phases"):
            return self.own.gradients(batch)  # a family's, of a part of its blocks
        return trainer.gradients(batch)


def _options(entered: _Entered) -> dict[str, Any]:
    features = entered.input if entered.stage.start else None
    frozen = () if entered.own is None else entered.own.frozen
    return {"predict": entered.predict, "features": features, "width": entered.width, "frozen": frozen}


class _FormerDescent(Descent):
    def __init__(self, trainer: Any, index: int, stage: Stage):
        self._entered = _Entered(trainer, index, stage)
        options = _options(self._entered)
        super().__init__(stage.name, stage.parameters, self._entered.gradients, groups=stage.groups, **options)

    def freeze(self) -> None:
        self._entered.enter()
        super().freeze()


class _FormerSolve(Solve):
    def __init__(self, trainer: Any, index: int, stage: Stage):
        self._entered = _Entered(trainer, index, stage)
        super().__init__(stage.name, stage.parameters, **_options(self._entered))

    def freeze(self) -> None:
        self._entered.enter()
        super().freeze()

    def accumulate(self, batch: Batch) -> None:
        rule: Any = self._entered.enter()
        rule.accumulate(batch)

    def sums(self) -> list[Tensor]:
        rule: Any = self._entered.enter()
        return rule.sums() if hasattr(type(rule), "sums") else super().sums()

    def solve(self) -> dict[str, Tensor]:
        rule: Any = self._entered.enter()
        return rule.solve()


def _own(trainer: Any) -> list[Phase]:
    """Return the phases of the present contract that a rule has from its family, whatever it overrides."""
    return list(_present(trainer, "phases")())


def _inherited(trainer: Any) -> Phase:
    own = _own(trainer)
    return own[min(trainer.stage, len(own) - 1)]


def _as_stage(trainer: Any, phase: Phase) -> Stage:
    start = max(1, sum(block in phase.frozen for block in trainer.net.blocks)) if phase.width is not None else 0
    groups = phase.groups if isinstance(phase, Descent) else ()
    return _Quiet(phase.name, phase.parameters, start, isinstance(phase, Solve), groups, phase.width)


def _marked(method: Callable[..., Any]) -> Any:
    method.adapted = True  # pyright: ignore[reportFunctionMemberAccess]
    return method


def _is_adapted(cls: type, name: str) -> bool:
    return getattr(getattr(cls, name), "adapted", False)


def _present(trainer: Any, name: str) -> Callable[..., Any]:
    """Return the method of the present contract that no adaptation has made, bound to the rule."""
    found = (vars(cls)[name] for cls in type(trainer).__mro__ if name in vars(cls))
    return partial(next(method for method in found if not getattr(method, "adapted", False)), trainer)


def _overrides(trainer: Any, name: str) -> bool:
    return getattr(type(trainer), name) is not getattr(FormerContract, name)


def _overridden_since(cls: type, name: str, since: str) -> bool:
    """Return whether a class overrides a method after the one that defines another in the present contract."""
    for base in cls.__mro__:
        if name in vars(base):
            return since not in vars(base) or getattr(vars(base)[since], "adapted", False)
        if since in vars(base) and not getattr(vars(base)[since], "adapted", False):
            return False
    return False


def _warn(text: str, level: int = 3) -> None:
    warnings.warn(text, FutureWarning, stacklevel=level)  # shown at the command line as well, unlike DeprecationWarning
