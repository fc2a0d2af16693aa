"""Local losses: prediction and similarity, each block by itself."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.tasks import Task
from localearn.trainers.feedback.passes import no_autocast
from localearn.trainers.local.base import LocalTrainer, Schedule
from localearn.trainers.local.heads import TIED, Activity, Kind, NoiseContrastive, activity_shapes, build
from localearn.trainers.phases import Metrics

Loss = Literal["pred", "sim", "predsim"]


class LocalLoss(LocalTrainer):
    """Train by local losses: each block learns by a head of its own, and to be alike where the targets are alike.

        a_k = block k's activity, before the dropout and pooling that it ends with; h_k its output
        pred     L(head_k(a_k), y)                    L is CE, of values their own; linear: D_k avgpool(a_k), (N, C)
        sim      mean_ij (S(W_k a_k) - S(Y))_ij^2     S is (N, N), of the rows of the batch
        predsim  (1 - beta) pred + beta sim           beta = 0.99 lies on the SIMILARITY
        S(X)_ij = cos(x_i - mean(x_i), x_j - mean(x_j)), each row's mean being over its own entries

    W_k is a 3x3 convolution of maps, (N, D, H, W) to the same, else a (D, D) matrix, without bias. A map is reduced to
    its deviation over places, (N, D), where there are several and D > 3; of a sequence the net's view is compared. Y is
    the target in the output's space, one-hot of labels. Block k, W_k and head_k follow loss_k alone. The last head is
    the net's readout, which by sim learns from h_L as a constant; so the trained net predicts without this class.
    Where the view is per position, each position has its head's output; linear is an untied readout then (2609.33240).
    With all blocks in one group, `Net.group`, pred is backprop.

    Nokland, Eidnes, "Training Neural Networks with Local Error Signals", arXiv 1901.06656, as its code has it
    (github.com/anokland/local-loss): pred is its L_pred, predsim its L_predsim, sim its L_sim = |S(NeuralNet(H)) -
    S(Y)|_F^2, in code and here the mean over pairs. Differences: their last hidden layer has a D_k next to the readout,
    which follows CE whole; ours has the readout alone, by (1 - beta) CE, drawn and not from zero; windows at a map's
    edge are means of what they hold; AugLocal changes a copied layer's own channels and stride, ours has a pooling and
    a 1x1 map before it, and lets depth fall at the end alone.

    Known weakness: S is of the rows in a batch, so it wants batches that hold each class several times (of 100 classes
    they draw 20 a batch), and a rank of parallel=data compares its own rows alone. S knows no lengths: without
    normalisation nothing holds small activities up, as Cora's rows, which sum to one, make them, on which heads learn
    slowly, and weight decay, which beta does not scale, outweighs (1 - beta) CE. Tied heads read weights that learn
    elsewhere, so they are not for parallel=layers. Rows of equal values have S = 0, rows of two have +-1.

    Args:
        net: a net whose blocks have something that such heads can read.
        loss: "pred", "sim" or "predsim", as above. None is predsim; pred where a target is one value, which has no
            direction to compare, or where outputs are of positions, whose matrix has (N T)^2 entries. Positions that
            are padding are not compared.
        beta: the similarity's part of predsim, in [0, 1].
        head: of the blocks but the last: "linear", D_k on a map's average over windows, D_k from zero; "mlp" or "conv",
            `head_depth` hidden layers first, by conv 1x1 convolutions of a coarser map (Belilovsky et al. 2019/2020);
            "auglocal", copies of `head_depth` of the net's later blocks, and of its readout (arXiv 2402.17318), which
            reads h_k; "tied", the readout's weights W, as constants, "projected", W P_k, P_k from the identity, or
            "low_rank", W + U_k V_k, for blocks of one width, as a transformer's are; "nce", linear, trained to
            distinguish the target from `noise` others, for targets of classes.
        head_width: the most values that a linear head reads, 1 or more.
        head_depth: hidden layers, or copied blocks, 1 or more.
        rank: of low_rank, 1 or more.
        noise: the others of nce, 1 or more.
        schedule: "joint" or "greedy", see `LocalTrainer`.

    Raises:
        UserError: when an option is out of its range.
        Unsupported: when the net has nothing that such heads could read, or a greedy schedule could not end with the
            readout.

    """

    def __init__(
        self,
        net: Net,
        loss: Loss | None = None,
        beta: float = 0.99,
        head: Kind = "linear",
        head_width: int = 4096,
        head_depth: int = 1,
        rank: int = 8,
        noise: int = 64,
        schedule: Schedule = "joint",
    ):
        super().__init__(net, schedule)
        if not 0 <= beta <= 1:
            raise UserError(f"beta, the similarity's part of predsim, must lie in [0, 1], not {beta}")
        for name, value in (("head_width", head_width), ("head_depth", head_depth), ("rank", rank), ("noise", noise)):
            if value < 1:
                raise UserError(f"{name} must be 1 or more, not {value}")
        single = net.classes == 1 or bool(net.positions)
        self.loss: Loss = ("pred" if single else "predsim") if loss is None else loss
        self.beta = beta
        self.weights = {"pred": 1 - beta, "sim": beta} if self.loss == "predsim" else {self.loss: 1.0}
        self.head = head
        if schedule == "greedy" and (self.loss == "sim" or head in TIED):
            what = "loss=sim has no scores before the last block" if self.loss == "sim" else f"head={head} reads it"
            raise Unsupported(f"greedy ends with the readout, and {what}; use schedule=joint")
        self.check_task(net.task)
        shapes = activity_shapes(net)
        self.activities = [Activity(net.block(k)) for k in range(net.depth)]
        learns = self.loss != "sim"
        self.heads = build(head, net, shapes, head_width, head_depth, rank, noise) if learns else nn.ModuleList()
        like = next(net.parameters())
        compared = shapes if self.loss != "pred" else []
        self.similarities = nn.ModuleList(map(_projection, compared)).to(device=like.device, dtype=like.dtype)

    def check_task(self, task: Task) -> None:
        """Check the task: a similarity refuses targets that are one value, and nce those without classes."""
        super().check_task(task)
        if task.outputs == 1 and self.loss != "pred":
            raise Unsupported(f"loss={self.loss} compares targets' directions, and {task} has one value; use loss=pred")
        if task.pools_positions and self.loss != "pred":
            raise Unsupported(f"loss={self.loss} compares targets, and of {task} a position has none; use loss=pred")
        if self.head == "nce" and not task.exclusive:
            raise Unsupported(f"head=nce draws classes that are wrong, and {task} has none; use head=linear")

    def check_pipeline(self) -> None:
        """Check that no block reads the readout's weights, which another process has.

        Raises:
            UserError: when one does.

        """
        super().check_pipeline()
        if self.head in TIED and self.loss != "sim":
            raise UserError(f"head={self.head} reads the readout's weights in every block; use head=linear")

    def run_block(self, k: int, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Return h_{k+1}, the loss of block k and, where that is a sum of two, both of them."""
        a, h = self.activities[k](h, *batch.context)
        parts = self._parts(k, a, h, batch)
        metrics = {f"{name}_{k + 1}": part.detach() for name, part in parts.items() if len(parts) > 1}
        return h, self._weighted_sum(parts), metrics

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return the loss of block k from its output where that is its activity, too."""
        return self._weighted_sum(self._parts(k, h, h, batch))

    def _parts(self, k: int, a: Tensor, h: Tensor, batch: Batch) -> Metrics:
        """Return the losses that block k's loss is made of, by name."""
        parts: Metrics = {}
        if self.loss != "sim":
            parts["pred"] = self.prediction_loss(k, a, h, batch)
        if self.loss != "pred":
            parts["sim"] = self.similarity_loss(k, a, batch)
        if self.loss == "sim" and k == self.net.depth - 1:
            parts["readout"] = self.task.loss(self.net.logits(h.detach(), *batch.context), batch)
        return parts

    def _weighted_sum(self, parts: Metrics) -> Tensor:
        return torch.stack([self.weights.get(name, 1.0) * part for name, part in parts.items()]).sum()

    def prediction_loss(self, k: int, a: Tensor, h: Tensor, batch: Batch) -> Tensor:
        """Return L(head_{k+1}, y), the task's mean loss, or for noise-contrastive heads their own.

        Args:
            k: the block, 0..L-1.
            a: its activity, (N, ...).
            h: its output, (N, *shapes[k]).
            batch: the step's batch.

        """
        if k == self.net.depth - 1:
            return self.task.loss(self.net.logits(h, *batch.context), batch)
        head = self.heads[k]
        if not isinstance(head, NoiseContrastive):
            return self.task.loss(self.head_output(k, a, h, *batch.context), batch)
        counted = self.task.counted(batch.target)
        target = batch.target if counted is None else torch.where(counted, batch.target, 0)
        losses = head.losses(batch.select(head.read(a)).flatten(0, -2), target.flatten())
        if counted is None:
            return losses.mean()
        return torch.where(counted.flatten(), losses, 0).sum() / counted.sum().clamp_min(1)

    def similarity_loss(self, k: int, a: Tensor, batch: Batch) -> Tensor:
        """Return the mean of (S(W a) - S(Y))^2 over pairs of elements that count.

        Args:
            k: the block, 0..L-1.
            a: its activity, (N, ...).
            batch: the step's batch.

        """
        z = self.similarities[k](batch.select(a))
        z = _deviation(z) if z.dim() == 4 else self.net.view(z).flatten(0, -2)
        counted = self.task.counted(batch.target)
        y = self.task.encode(batch.target)
        y = y.flatten(0, -2) if y.dim() > 2 else y
        with no_autocast(z.device):
            # In bfloat16 a cosine has an error of its own size where classes barely differ.
            z = z.to(torch.promote_types(z.dtype, torch.float32))
            x, t = _directions(z), _directions(y.to(z.dtype))
            if counted is None:
                return F.mse_loss(x @ x.T, t @ t.T)
            x = x * counted.flatten().unsqueeze(-1)
            return F.mse_loss(x @ x.T, t @ t.T, reduction="sum") / counted.sum().clamp_min(1) ** 2

    def head_output(self, k: int, a: Tensor, h: Tensor, *context: Tensor) -> Tensor:
        """Return head k's outputs, (N, ..., C).

        Args:
            k: the block, 0..L-1.
            a: its activity, (N, ...).
            h: its output, (N, *shapes[k]).
            context: what the blocks take next to their input.

        """
        return self.heads[k](h, *context) if self.head == "auglocal" else self.heads[k](a)

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return the outputs of block stop's head, the readout after the last one, (N, C)."""
        a = h
        for k in range(start, stop):
            a, h = self.activities[k](h, *context)
        if stop == self.net.depth:
            return self.net.logits(h, *context)
        return self.head_output(stop - 1, a, h, *context)

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return the block's own parameters, its head's, and W_k."""
        return [*super().block_parameters(k), *(p for module in self._own(k) for p in module.parameters())]

    def block_tensors(self, k: int) -> list[Tensor]:
        """Return the tensors that training block k changes, running statistics in its head among them."""
        return [*super().block_tensors(k), *(b for module in self._own(k) for b in module.buffers())]

    @property
    def net_predicts(self) -> bool:
        """Whether the net alone predicts: always, by its readout."""
        return True

    def _own(self, k: int) -> list[nn.Module]:
        return [modules[k] for modules in (self.heads, self.similarities) if k < len(modules)]


def similarity(x: Tensor) -> Tensor:
    """Return S, (N, N): the cosines between rows, each without its own mean; 0 for a constant row.

    Args:
        x: (N, n).

    """
    x = _directions(x)
    return x @ x.T


def _directions(x: Tensor) -> Tensor:
    return F.normalize(x - x.mean(1, keepdim=True), dim=1, eps=1e-8)


def _projection(shape: tuple[int, ...]) -> nn.Module:
    """Return W_k for an activity's rows of that shape."""
    if len(shape) == 3:
        return nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False)
    return nn.Linear(shape[-1], shape[-1], bias=False)


def _deviation(z: Tensor) -> Tensor:
    """Return rows, (N, D), of maps (N, D, H, W): deviations over places, or all values where D or places are few."""
    values = z.flatten(2)
    if values.shape[1] <= 3 or values.shape[2] == 1:
        return values.flatten(1)
    return values.to(torch.promote_types(values.dtype, torch.float32)).std(2)
