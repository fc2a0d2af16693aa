"""The family of rules whose every block has a loss of its own."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.trainers.base import Trainer, accumulate_grad
from localearn.trainers.phases import Descent, Metrics, completed

Schedule = Literal["joint", "greedy"]


class LocalTrainer(Trainer):
    """Define a rule whose block k follows the gradient of its own loss, its input being a constant.

        d theta_k = d loss_k / d theta_k at fixed h_{k-1}

    A block's graph is dropped as soon as its gradient is taken, so activation memory does not grow with depth.

    A rule defines `block_loss`; where that needs more than the block's output, it overrides `run_block`, and where
    something learns from the input alone, `first_input`. `learn_block` trains a block, here and in a pipeline over
    ranks.

    Args:
        net: the net to train.
        schedule: "joint" steps all blocks on each batch, first to last; "greedy" trains one block after another, each
            to its own end, on features of the frozen blocks before it (as evaluated: without dropout, with running
            statistics).

    Attributes:
        chained: whether block k + 1 learns from block k's output. Where it is False, every block learns from what
            `first_input` returns, which passes through `run_block` as it is and has nothing that learns: so blocks have
            no order, and on ranks that each make it for themselves nothing passes between them.

    Raises:
        Unsupported: when the schedule is greedy and blocks share weights, since the one would be frozen and the other
            trained.

    """

    is_local = True
    chained: ClassVar[bool] = True

    def __init__(self, net: Net, schedule: Schedule = "joint"):
        super().__init__(net)
        each = [p for block in net.blocks for p in block.parameters()]
        if schedule == "greedy" and len(set(each)) < len(each):
            raise Unsupported(
                "greedy freezes a block before the next learns, and blocks share weights; use schedule=joint"
            )
        self.schedule = schedule

    @abstractmethod
    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a block.

        Args:
            k: the block, 0..L-1.
            h: its output h_{k+1}, (N, *shapes[k]).
            batch: the step's batch, for its targets.

        """

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return the parameters that the loss of block k trains: the block's own, and for the last one the readout's.

        A rule whose blocks have heads of their own adds theirs.

        Args:
            k: the block, 0..L-1.

        """
        readout = list(self.net.readout.parameters()) if k == self.net.depth - 1 else []
        return [*self.net.block(k).parameters(), *readout]

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return the tensors that training block k changes: its parameters and running statistics.

        Args:
            k: the block, 0..L-1.

        """
        buffers = list(self.net.block(k).buffers())
        if k == self.net.depth - 1:
            buffers += self.net.readout.buffers()
        return [*self.block_parameters(k), *buffers]

    def pipelined(self) -> "LocalTrainer":
        """Return the rule itself, whose blocks `first_input` and `learn_block` train.

        Raises:
            UserError: when `check_pipeline` does.

        """
        self.check_pipeline()
        return self

    def check_pipeline(self) -> None:
        """Check that a step is no more than `first_input` and `learn_block`, which run on different processes.

        Raises:
            UserError: when it is.

        """
        self._check_inherited_gradients("parallel=data")
        if self.schedule == "greedy":
            raise UserError(
                "greedy trains one block at a time, so there is nothing to run in parallel; "
                "use schedule=joint, or parallel=data"
            )

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return (N, C) scores from h_start, predicting with blocks start..stop-1 alone.

        They are the readout's logits after the last block; a rule that has scores after an earlier one, as a greedy
        schedule needs, overrides this.

        Args:
            h: h_start, (N, *shapes[start - 1]).
            context: what the blocks take next to their input.
            start: the first block to run.
            stop: the block to stop before.

        Raises:
            UserError: when the rule has no scores before its last block.

        """
        if stop < self.net.depth:
            raise UserError(f"{type(self).__name__} has no scores before its last block; use schedule=joint")
        for k in range(start, stop):
            h = self.net.block(k)(h, *context)
        return self.net.logits(h, *context)

    def hidden(self, x: Tensor, *context: Tensor, depth: int) -> Tensor:
        """Return the input of a block, (N, *shapes[depth - 1]): the output of those before it.

        A rule that changes a block's output on its way to the next overrides this.

        Args:
            x: rows, (N, *input_shape).
            context: what the blocks take next to their input.
            depth: the block, 0..L-1.

        """
        return self.net.hidden(x, *context, depth=depth)

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return h_0, the first block's input, and the losses of what learns from the net's input alone.

        The `.grad` of the latter is filled, and its losses are detached. By default: the stem's output, and none.

        Args:
            batch: the step's batch.

        """
        return self.net.stem(batch.x), {}

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return block k's output h_{k+1}, its loss and further metrics; output and loss have the block's graph alone.

        Args:
            k: the block, 0..L-1.
            h: its input h_k, detached.
            batch: the step's batch: its x is the net's input, not the block's.

        Returns:
            The output, (N, *shapes[k]); the loss, a scalar; and metrics next to the loss, detached scalars by name.

        """
        h = self.net.block(k)(h, *batch.context)
        return h, self.block_loss(k, h, batch), {}

    @final
    def learn_block(
        self, k: int, h: Tensor, batch: Batch, on_output: Callable[[Tensor], None] | None = None
    ) -> tuple[Tensor, Metrics]:
        """Fill `.grad` of block k and its own head from a batch, and return the next block's input.

        The whole net learns by `first_input` and then this for k = 0..L-1, each block from what the one before it
        returned, on one process or on many: nothing comes back, so block k need not wait for block k + 1.

        Args:
            k: the block, 0..L-1.
            h: its input h_k, (N, *shapes[k - 1]), or what the rule makes of it, say two rows for each; a constant.
            batch: the step's batch, for its targets and context; x is the net's input.
            on_output: called with h_{k+1} as soon as it is there, before the block's gradient is taken.

        Returns:
            Block k's output h_{k+1} of before the step, detached, and detached scalars, `loss_{k+1}` among them.

        """
        h, loss, metrics = self.run_block(k, h.detach(), batch)
        h = h.detach()
        if on_output is not None:
            on_output(h)
        accumulate_grad(loss)
        return h, {f"loss_{k + 1}": loss.detach(), **metrics}

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` of all blocks, first to last; return the sum of the losses and each one's."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after each block."""
        h, input_losses = self.first_input(batch)
        yield from self.learn_blocks(range(self.net.depth), h, batch, input_losses)

    def learn_blocks(
        self, blocks: range, h: Tensor, batch: Batch, input_losses: Metrics | None = None
    ) -> Iterator[Metrics]:
        """Train blocks one after another, yielding each one's metrics, and at the end the sum of the losses as `loss`.

        Args:
            blocks: a range of consecutive blocks.
            h: the input of the first of them, as `learn_block` takes it.
            batch: the step's batch.
            input_losses: the losses that `first_input` returned, which are added to the sum, too.

        """
        losses: list[Tensor] = []
        if input_losses:
            yield input_losses
        for k in blocks:
            h, found = self.learn_block(k, h, batch)
            losses.append(found[f"loss_{k + 1}"])
            yield found
        yield {"loss": self.total(input_losses or {}, losses)}

    def total(self, input_losses: Metrics, losses: Sequence[Tensor]) -> Tensor:
        """Return the sum, a scalar, of the losses that `first_input` reports and of the blocks' losses.

        Args:
            input_losses: the losses of `first_input`, by name.
            losses: the blocks' losses, scalars.

        """
        return torch.stack([*input_losses.values(), *losses]).sum()

    def predict(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the whole net's scores, (N, C)."""
        return self.block_scores(self.net.stem(x), *context, start=0, stop=self.net.depth)

    @property
    def net_predicts(self) -> bool:
        """Whether the net alone predicts: neither `predict` nor `block_scores` is overridden."""
        own = type(self)
        return own.predict is LocalTrainer.predict and own.block_scores is LocalTrainer.block_scores

    def phases(self) -> Sequence[Descent]:
        """Return one phase for all blocks, or one a block where the schedule is greedy."""
        if self.schedule == "joint":
            parameters = (p for k in range(self.net.depth) for p in self.block_parameters(k))
            return [self.descent("all blocks", dict.fromkeys(parameters))]  # once, where blocks share them
        self._check_inherited_gradients("schedule=joint")
        return [self.greedy_descent(k) for k in range(self.net.depth)]

    def greedy_descent(self, k: int) -> Descent:
        """Return the phase that trains block k alone, on the features of the blocks before it, which are frozen.

        Args:
            k: the block, 0..L-1.

        """

        def gradients(batch: Batch) -> Iterator[Metrics]:
            h, input_losses = (batch.x, {}) if k else self.first_input(batch)
            yield from self.learn_blocks(range(k, k + 1), h, batch, input_losses)

        def predict(h: Tensor, *context: Tensor) -> Tensor:
            return self.block_scores(h if k else self.net.stem(h), *context, start=k, stop=k + 1)

        parameters = (p for p in self.block_parameters(k) if p.requires_grad)
        return Descent(
            f"block {k + 1}",
            parameters,
            gradients,
            predict=predict,
            features=partial(self.hidden, depth=k) if k else None,
            width=self.net.widths[k - 1] if k else None,
            frozen=[self.net.stem, *list(self.net.blocks)[:k]] if k else (),
        )

    def _check_inherited_gradients(self, instead: str) -> None:
        """Raise UserError where a subclass's own `gradients` leaves unknown how a block learns by itself."""
        if type(self).gradients is not LocalTrainer.gradients:
            raise UserError(
                f"{type(self).__name__} overrides gradients(), so how a block learns alone is unknown; override "
                f"run_block() and first_input() in its place, or use {instead}"
            )
