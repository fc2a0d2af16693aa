"""Options of rules that contradict each other, the net or the data: told in a line or two before training."""

from pathlib import Path

import pytest

# Each command line, and words that its error must have.
CONTRADICTIONS = {
    "algo=backprop algo.schedule=greedy": "with algo=backprop; forward_forward, forward_gnn, ",
    "algo=backprop +algo.schedule=greedy": "Backprop has no option algo.schedule",
    "algo=pepita net=resnet20": "pepita cannot train this ResNet: block 2 is a Residual",
    "algo=pepita algo.mirror=true net=cnn net.channels=[4] net.pool=2": "this CNN has others; use net=mlp",
    "algo=pepita algo.scale=0": "scale must be positive",
    "algo=cafo algo.solver=closed_form algo.loss=ce": "loss=ce has no closed form; use solver=gradient, or loss=mse",
    "algo=cafo algo.solver=closed_form algo.loss=sparsemax": "loss=sparsemax has no closed form",
    "algo=cafo diagnose=alignment": "solves for its weights; use diagnose=none",
    "algo=forward_gradient algo.tangents=0": "tangents must be 1 or more, not 0",
    "algo=forward_gradient algo.tangents=1.5": "algo.tangents must be a whole number, not 1.5",
    "algo=forward_gradient algo.guess=local algo.tangents=3": "use tangents=1, not 3, or guess=noise",
    "algo=likelihood_ratio algo.sigma=0": "sigma must be positive, not 0",
    "algo=likelihood_ratio algo.sigma=true": "algo.sigma must be a number or a list of numbers, not true",
    "algo=likelihood_ratio algo.sigma=[0.1]": "sigma has 1 values for 2 blocks",
    "algo=likelihood_ratio algo.copies=-2": "copies must be 1 or more, not -2",
    "algo=likelihood_ratio algo.copies=3": "antithetic copies come in pairs, and 3 is odd; use copies=4",
    "algo=likelihood_ratio algo.baseline=mean algo.copies=2": "other pairs, and there are none; use copies=4 or more",
    "algo=likelihood_ratio algo.noise=sobol net.widths=[30000,4]": "a row 30004 values; use noise=gaussian",
    "algo=product_feedback_alignment algo.expansion=0.5": "expansion must be 1 or more",
    "algo=product_feedback_alignment algo.expansion=1e300": "out of memory at net=mlp_2x256 with algo=product",
    "algo=forward_forward algo.threshold=0": "threshold must be positive, or null",
    "algo=forward_forward algo.peer_normalization=nan": "algo.peer_normalization must be a number, not nan",
    "algo=forward_forward algo.collaboration=all net.widths=[8]": "needs other blocks, and the net has one; use none",
    "algo=forward_forward algo.schedule=greedy algo.negatives=hard": "use negatives=uniform or joint",
    "algo=forward_forward net=cnn net.channels=[4] net.pool=2 diagnose=alignment": "predicts by more than the net",
    "algo=backprop net.activation=sign": "Backprop needs derivatives, and Sign's is zero everywhere",
    "algo=feedback_alignment dataset=karate net=gat": "is a matrix of another kind; use such layers alone",
    "algo=sign_symmetry algo.variant=null": "algo.variant must be usf, brsf or frsf, not null",
}


@pytest.mark.parametrize("line", CONTRADICTIONS)
def test_contradictions_are_told_before_training(door, line):
    ended = door(*line.split(), "energy.enabled=false", "progress=false", "out=run")
    assert ended.status == 2
    assert ended.out == ""
    assert CONTRADICTIONS[line] in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert not Path("run").exists()
