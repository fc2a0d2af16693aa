"""Rules whose every block has a loss of its own."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.trainers.base import Stage, Trainer, follow

Schedule = Literal["joint", "greedy"]


class LocalTrainer(Trainer):
    """Block k follows the gradient of its own loss, its input being a constant: d loss_k / d theta_k at fixed h_{k-1}.

    schedule: "joint" steps all blocks on each batch, first to last; "greedy" trains one block after another, each to
    its own end, on features of the frozen blocks before it (as evaluated: without dropout, with running statistics).
    Greedy refuses blocks that share weights (`Unsupported`), since the one would be frozen and the other trained.
    A block's graph is dropped as soon as its gradient is taken, so activation memory does not grow with depth.
    """

    def __init__(self, net: Net, schedule: Schedule = "joint"):
        super().__init__(net)
        each = [p for block in net.blocks for p in block.parameters()]
        if schedule == "greedy" and len(set(each)) < len(each):
            raise Unsupported(
                "greedy freezes a block before the next learns, and blocks share weights; use schedule=joint"
            )
        self.schedule = schedule
        self.span: range | None = None  # the blocks that this process trains where others train the rest
        self.hand_on: Callable[[Tensor], None] | None = None  # takes the last one's output, for who has the next block

    @abstractmethod
    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of block k, 0..L-1, from its output h_{k+1}, (N, *shapes[k])."""

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return what the loss of block k trains: the block's own parameters, with the last one's the readout's too.

        A rule whose blocks have heads of their own adds theirs.
        """
        readout = list(self.net.readout.parameters()) if k == self.net.depth - 1 else []
        return [*self.net.block(k).parameters(), *readout]

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return what training block k changes: its parameters, and the running statistics beside them."""
        buffers = list(self.net.block(k).buffers())
        if k == self.net.depth - 1:
            buffers += self.net.readout.buffers()
        return [*self.block_parameters(k), *buffers]

    def check_pipeline(self) -> None:
        """Raise UserError unless blocks can learn on different processes, each knowing h_{k-1} and the labels alone."""
        if self.schedule == "greedy":
            raise UserError(
                "greedy trains one block at a time, so there is nothing to do side by side; "
                "use schedule=joint, or parallel=data"
            )

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return (N, C) scores from h_start, predicting with blocks start..stop-1 alone.

        The readout's logits after the last block; a rule that has scores after an earlier one, as a greedy schedule
        needs, overrides this.
        """
        if stop < self.net.depth:
            raise UserError(f"{type(self).__name__} has no scores before its last block; use schedule=joint")
        for k in range(start, stop):
            h = self.net.block(k)(h, *context)
        return self.net.logits(h, *context)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` block by block; return the sum of the blocks' losses and each one's."""
        blocks = self._trained_here()
        h = self.net.stem(batch.x) if blocks.start == 0 else batch.x
        losses = {}
        for k in blocks:
            h = self.net.block(k)(h.detach(), *batch.context)
            self._pass_on(k, h)
            loss = self.block_loss(k, h, batch)
            follow(loss)
            losses[f"loss_{k + 1}"] = loss.detach()
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def scores(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the whole net's scores, (N, C)."""
        return self.block_scores(self.net.stem(x), *context, start=0, stop=self.net.depth)

    def stages(self) -> list[Stage]:
        """Return one stage for all blocks, or one a block where the schedule is greedy."""
        blocks = [tuple(p for p in self.block_parameters(k) if p.requires_grad) for k in range(self.net.depth)]
        if self.schedule == "joint":
            return [Stage("all blocks", tuple(dict.fromkeys(sum(blocks, ()))))]  # once, where blocks share them
        return [Stage(f"block {k + 1}", parameters, start=k) for k, parameters in enumerate(blocks)]

    def stage_input(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the frozen blocks: x itself for the first stage."""
        start, _ = self._span()
        return self.net.hidden(x, *context, depth=start) if start else x

    def stage_scores(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return (N, C) scores of the blocks trained so far, as far as they can be told from the stage's input."""
        start, stop = self._span()
        return self.block_scores(self.net.stem(h) if start == 0 else h, *context, start=start, stop=stop)

    def enter(self, stage: int) -> None:
        """Begin a stage; in a greedy schedule the blocks before its own are frozen and evaluated."""
        super().enter(stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> "LocalTrainer":
        """Set training mode, but for what the stage has frozen."""
        super().train(mode)
        start, _ = self._span()
        frozen = [self.net.stem, *list(self.net.blocks)[:start]] if start else []
        for module in frozen:
            module.eval()
        return self

    def _trained_here(self) -> range:
        """Return the blocks that `gradients` is about: of a stage, or of a share of all."""
        return range(*self._span()) if self.span is None else self.span

    def _pass_on(self, k: int, h: Tensor) -> None:
        """Hand block k's output on where the next block is another process's."""
        if self.hand_on is not None and k == self._trained_here().stop - 1:
            self.hand_on(h.detach())

    def _span(self) -> tuple[int, int]:
        return (0, self.net.depth) if self.schedule == "joint" else (self.stage, self.stage + 1)
