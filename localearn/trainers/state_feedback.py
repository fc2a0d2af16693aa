from collections.abc import Iterator
from typing import Any

from torch import nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported
from localearn.nets import Net
from localearn.nets.recurrent import recurrent_layers, use_derivatives
from localearn.nets.through_time import Diagonal, Feedback, Recursion
from localearn.trainers.backward import CutPass, can_be_cut
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Metrics, Parts


class StateFeedback(Trainer):
    """Train by diagonal state feedback: in a recurrent net errors come back through time by a fixed diagonal a layer.

        s_t = f(x_t, s_{t-1})                       a layer's states, (N, n), t = 1..T, as they are
        g_t = dL/ds_t|local + g_{t+1} A             in place of g_{t+1} ds_{t+1}/ds_t; A is (n, n), diagonal, fixed
        dL/dtheta = sum_t g_t ds_t/dtheta           s_{t-1} being a constant; likewise dL/dx_t, the local error of the
                                                    layer before, so that depth is differentiated by backpropagation

    dL/ds_t|local is what the readout, or the next layer, sends back to step t alone. As A stays the same at all times
    the recursion is a correlation with A's powers: all steps are differentiated at once, and no matrix is multiplied
    step by step in the backward pass. With A = 0 it is fully truncated backpropagation through time.

    Caillon, Fagnou, Allauzen, "Fast Training of Recurrent Neural Networks with Stationary State Feedbacks", arXiv
    2503.23104.

    Knowing differences: gaussian eigenvalues lie in [-1, 1], beyond which g grows without bound in T, and orthogonal
    feedback turns pairs of units. The state of an LSTM, which the paper has not, is (h, c), and c is read by no loss.
    Across depth any other rule does the same on a net that is built with `through_time=diagonal`, as `net=gru` may be:
    a local or a feedback rule says what a layer's error is, and the layer how it goes back through time.

    Known weakness: A knows nothing of the gates, so a state that the net forgets is credited all the same, and one that
    it keeps for n steps only as its own a_i^n has it. The forward pass is still taken step by step.

    Args:
        net: a net with a recurrent layer.
        feedback: A's diagonal: "linear", the paper's a_i = i / (n - 1); "gaussian" or "orthogonal", drawn, see
            `Diagonal`.
        recursion: how g is computed, "scan", by doubling, in log2(T) sums, or "fft"; to rounding they are the same.

    """

    crosses_blocks = True

    def __init__(self, net: Net, feedback: Feedback = "linear", recursion: Recursion = "scan"):
        super().__init__(net)
        like = next(net.parameters())
        self.feedbacks: Any = nn.ModuleList(
            Diagonal(layer.layer.hidden_size, feedback, recursion, like) for layer in recurrent_layers(net)
        )

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: it has a recurrent layer whose derivative through time it does not define itself."""
        super().supports(net, data)
        layers = recurrent_layers(net)
        if not layers:
            raise Unsupported(
                f"state_feedback sends errors back through time, and {type(net).__name__} has no recurrent layer; use "
                "net=gru, rnn or lstm, or algo=backprop"
            )
        own = next((layer.through_time for layer in layers if layer.through_time is not None), None)
        if own is not None:
            raise Unsupported(
                f"{type(net).__name__} is built to be differentiated through time by {type(own).__name__.lower()} "
                "derivatives, and state_feedback has its own; use net.through_time=exact, or algo=backprop"
            )

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` with the gradient that has A for the Jacobian through time; return the loss."""
        with use_derivatives(self.net, self.feedbacks):
            loss = self.task.loss(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach()}

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` as `gradients` does, pausing at each block on the way back."""
        return self._by_block(batch) if can_be_cut(self.net) else self.gradients(batch)

    def _by_block(self, batch: Batch) -> Iterator[Metrics]:
        with use_derivatives(self.net, self.feedbacks):
            cut = CutPass(self.net, batch)
        loss = self.task.loss(cut.logits, batch)
        yield from cut.backward(loss)
        yield {"loss": loss.detach()}
