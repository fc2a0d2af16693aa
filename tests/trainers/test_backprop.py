import torch
import torch.nn.functional as F

from localearn import Backprop


def test_the_gradient_is_autograds(case):
    net, batch = case
    trainer = Backprop(net)
    metrics = trainer.gradients(batch)
    logits = net(batch.x, *batch.context)
    labelled = logits if batch.nodes is None else logits[batch.nodes]
    loss = F.cross_entropy(labelled, batch.y)
    for p, expected in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-12, atol=0)
