from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported
from localearn.nets import Net
from localearn.nets.layers import preserve_modes
from localearn.trainers.base import linear_readout
from localearn.trainers.local.base import LocalTrainer, Schedule
from localearn.trainers.phases import Descent, Metrics

Prediction = Literal["bp", "ff"]


class MonoForward(LocalTrainer):
    """Train by Mono-Forward: each block learns to classify through a projection of its own.

        G_k = view(h_k) M_k^T              goodness, (N, C); M_k is (C, n_k), n_k what the net's view reads: all of h_k,
                                           or of each position for itself, G_k then being (N, T, C)
        loss_k = L(G_k, y)                 trains block k and M_k, and nothing else; L is CE, of values their own

    The last projection is the net's readout, so the trained net predicts without this class. A greedy phase is
    validated by what it knows, the goodness of its own block. The mean over the batch, M_k's initialisation (a
    Linear's) and, if the readout has one, its bias are ours.

    Known cost: the projection of a convolution's map has C weights for each of the map's values.

    Gong, Li, Abdulla, "Mono-Forward", arXiv 2501.09238, section 3; M_0: Spyra, arXiv 2509.19063.

    Args:
        net: a net whose readout, the last projection, is one Linear layer.
        schedule: "joint" or "greedy", see `LocalTrainer`.
        prediction: "bp" takes argmax G_L, one ordinary forward pass; "ff" takes the argmax of the sum of G_k over k (of
            values, their mean).
        input_projection: whether h_0 has a projection M_0 too; loss_0 trains it alone, before the blocks if the
            schedule is greedy, and G_0 counts in the sum of "ff". Not for token ids and codes.

    Raises:
        Unsupported: when the input has no values that M_0 could read.

    """

    serves_pairs = True

    def __init__(
        self,
        net: Net,
        schedule: Schedule = "joint",
        prediction: Prediction = "bp",
        input_projection: bool = False,
    ):
        super().__init__(net, schedule)
        self.prediction = prediction
        like = next(net.readout.parameters())

        def projection(n: int) -> nn.Linear:
            return nn.Linear(n, net.classes, bias=False, device=like.device, dtype=like.dtype)

        self.projections = nn.ModuleList(projection(n) for n in net.reads[:-1])
        self.input_projection = projection(_input_width(net)) if input_projection else None

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its readout, the last projection, is one Linear layer."""
        super().supports(net, data)
        if not isinstance(net.readout, nn.Linear):
            kind = type(net.readout).__name__
            raise Unsupported(
                f"mono_forward's last projection is the readout, a Linear; {type(net).__name__} has a {kind}"
                f"{linear_readout(net)}"
            )

    def goodness(self, k: int, h: Tensor) -> Tensor:
        """Return G_{k+1}, (N, C), or (N, T, C) of positions, as the net's view has it.

        Args:
            k: the block, 0..L-1.
            h: its output, (N, *shapes[k]).

        """
        return self._projection(k)(self.net.view(h))

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return L(G_{k+1}, y), the task's mean loss."""
        return self.task.loss(self.goodness(k, h), batch)

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W, b of block k and its projection."""
        return [*self.net.block(k).parameters(), *self._projection(k).parameters()]

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return the tensors that training block k changes; M_0 goes with the first block."""
        own = [] if k or self.input_projection is None else list(self.input_projection.parameters())
        return [*super().block_tensors(k), *own]

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return G_stop ("bp"), or the sum of G_{start+1}, ..., G_stop and, from h_0, of G_0 ("ff"); (N, C)."""
        terms = []
        if self.input_projection is not None and start == 0 and (self.prediction == "ff" or stop == 0):
            terms.append(self.input_projection(self.net.view(h)))
        for k in range(start, stop):
            h = self.net.block(k)(h, *context)
            if self.prediction == "ff" or k == stop - 1:
                terms.append(self.goodness(k, h))
        total = sum(terms[1:], terms[0])
        return total if self.task.adds_up else total / len(terms)

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return h_0, and the loss of its projection M_0, which reads another draw of the stem's dropout."""
        input_losses = {} if self.schedule == "greedy" else self._learn_input(batch)
        return self.net.stem(batch.x), input_losses

    @property
    def net_predicts(self) -> bool:
        """Whether the net alone gives the output that the rule learns by: always, G_L, also where "ff" adds others."""
        return True

    def total(self, input_losses: Metrics, losses: Sequence[Tensor]) -> Tensor:
        """Return the sum of the losses, loss_0 added last."""
        return sum(input_losses.values(), torch.stack(list(losses)).sum())

    def phases(self) -> Sequence[Descent]:
        """Return the family's phases, M_0 being in the first one or, in a greedy schedule, a phase before them."""
        first, *rest = super().phases()
        if self.input_projection is None:
            return [first, *rest]
        own = self.input_projection.parameters()
        if self.schedule == "joint":
            return [self.descent(first.name, (*own, *first.parameters))]
        return [Descent("input", own, self._input_gradients, predict=self._input_goodness), first, *rest]

    def _input_gradients(self, batch: Batch) -> Metrics:
        losses = self._learn_input(batch)
        return {"loss": losses["loss_0"], **losses}

    def _input_goodness(self, x: Tensor, *context: Tensor) -> Tensor:
        return self.block_scores(self.net.stem(x), *context, start=0, stop=0)

    def _learn_input(self, batch: Batch) -> Metrics:
        """Fill `.grad` of M_0, if there is one, and return its loss."""
        if self.input_projection is None:
            return {}
        loss = self.task.loss(self.input_projection(self.net.view(self.net.stem(batch.x))), batch)
        loss.backward()
        return {"loss_0": loss.detach()}

    def _projection(self, k: int) -> nn.Module:
        return self.net.readout if k == self.net.depth - 1 else self.projections[k]


def _input_width(net: Net) -> int:
    """Return how many values of h_0 a projection reads at once."""
    if net.takes.vocabulary is not None:
        raise Unsupported("token ids are no values that a projection could read; use input_projection=false")
    if net.takes.categories:
        name = type(net).__name__
        raise Unsupported(f"{name} takes codes, which are no values to project; use input_projection=false")
    with preserve_modes(net), torch.no_grad():
        net.eval()  # so that a stem's dropout draws nothing
        h_0 = net.stem(net.trial()[0])
    return net.view.width(tuple(h_0.shape[1:]))
