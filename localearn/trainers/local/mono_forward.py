from typing import Literal, get_args

from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.trainers.base import cross_entropy
from localearn.trainers.local.base import LocalTrainer, Schedule

Prediction = Literal["bp", "ff"]


class MonoForward(LocalTrainer):
    """Mono-Forward: each block learns to tell the classes apart through a projection of its own.

        G_k = flatten(h_k) M_k^T           goodness, (N, C); M_k is (C, n_k), n_k the flattened width of h_k
        loss_k = CE(G_k, y)                trains block k and M_k, and nothing else

    The last projection is the net's readout, so the trained net predicts without this class. prediction: "bp" takes
    argmax G_L, one ordinary forward pass; "ff" takes the argmax of the sum of G_k over k. The mean over the batch,
    M_k's initialisation (a Linear's) and, if the readout has one, its bias are ours.
    Gong, Li, Abdulla, "Mono-Forward", arXiv 2501.09238, section 3.
    """

    def __init__(self, net: Net, schedule: Schedule = "joint", prediction: Prediction = "bp"):
        super().__init__(net, schedule)
        if prediction not in get_args(Prediction):
            raise UserError(f"prediction is {' or '.join(get_args(Prediction))}, not {prediction!r}")
        self.prediction = prediction
        like = next(net.readout.parameters())
        self.projections = nn.ModuleList(
            nn.Linear(n, net.classes, bias=False, device=like.device, dtype=like.dtype) for n in net.widths[:-1]
        )

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Serve every net whose readout, the last projection, is one Linear layer."""
        super().supports(net, data)
        if not isinstance(net.readout, nn.Linear):
            kind = type(net.readout).__name__
            raise Unsupported(
                f"mono_forward's last projection is the readout, a Linear; {type(net).__name__} has a {kind}"
            )

    def goodness(self, k: int, h: Tensor) -> Tensor:
        """Return G_{k+1}, (N, C), of block k's output h, (N, *shapes[k])."""
        return self._projection(k)(h.flatten(1))

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return CE(G_{k+1}, y)."""
        return cross_entropy(self.goodness(k, h), batch)

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W, b of block k and its projection."""
        return [*self.net.block(k).parameters(), *self._projection(k).parameters()]

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return G_stop ("bp"), or the sum of G_{start+1}, ..., G_stop ("ff"); (N, C)."""
        total = None
        for k in range(start, stop):
            h = self.net.block(k)(h, *context)
            if self.prediction == "ff":
                goodness = self.goodness(k, h)
                total = goodness if total is None else total + goodness
        return self.goodness(stop - 1, h) if total is None else total

    def _projection(self, k: int) -> nn.Module:
        return self.net.readout if k == self.net.depth - 1 else self.projections[k]
