import torch

from localearn.data import Batch, Data
from localearn.errors import Unsupported
from localearn.nets import Net
from localearn.trainers.base import Pipelined, Trainer, accumulate_grad
from localearn.trainers.phases import Metrics, Phase


class Shallow(Trainer):
    """Train the readout alone, the shallow baseline, on blocks that stay as they were drawn.

        h_L = block_L(... block_1(stem(x)))      (N, *shapes[-1]), the blocks' weights theta_k never changing
        o = readout(view(h_L))                   (N, C), of positions (N, T, C)
        d theta_o = d L(o, y) / d theta_o        backprop's gradient of the readout, to the bit; d theta_k = 0

    A rule for blocks is held against it: one that does not beat it has not trained its blocks. It is the training
    method "shallow", of the topmost layer alone, of the code of Launay, Poli, Boniface, Krzakala, arXiv 2006.12878
    (github.com/lightonai/dfa-scales-to-modern-deep-learning), next to direct feedback alignment; the idea is that of
    random features.

    In the blocks dropout draws, and batch normalisation takes the batch's statistics and follows them, as it does in
    every training: statistics are no weights, and so the readout is given what backprop's first step gives it. Nothing
    of a block is differentiated, so blocks may be opaque, or have flat activations.

    Known weakness: it is meant to be weak. Of few inputs and many units random features are hard to beat all the same.

    Args:
        net: any net whose readout shares no parameter with a block.

    """

    needs_derivatives = False
    serves_pairs = True

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: any but one whose readout shares a parameter with a block, which would be trained with it."""
        super().supports(net, data)
        if {id(p) for p in net.readout.parameters()} & {id(p) for p in net.blocks.parameters()}:
            raise Unsupported(
                f"shallow leaves the blocks as they are, and {type(net).__name__}'s readout shares its weights with "
                "one; untie them, or use algo=backprop"
            )

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` of the readout with the true gradient; return the loss."""
        with torch.no_grad():
            h = self.net.hidden(batch.x, *batch.context)
        loss = self.task.loss(self.net.logits(h, *batch.context), batch)
        accumulate_grad(loss)
        return {"loss": loss.detach()}

    def phases(self) -> list[Phase]:
        """Return the one phase, of the readout's parameters."""
        return [self.descent("readout", self.net.readout.parameters())]

    def pipelined(self) -> Pipelined:
        """Raise UserError: no block learns, so that there is nothing for ranks to train."""
        raise Unsupported("shallow trains no block, so there is nothing to distribute by layers; use parallel=data")
