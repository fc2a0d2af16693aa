"""View synthesis: rendering by hand and in NumPy, its gradient, and what every rule makes of it."""

import math

import numpy as np
import pytest
import torch

from localearn import MLP, Backprop, Batch, DirectFeedbackAlignment, Unsupported, cli
from localearn.data import views
from localearn.errors import UserError
from localearn.tasks import ViewSynthesis, read_task
from localearn.trainers.phases import completed
from localearn.training.building import CONF, build_rule

RULES = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
REFUSED = {
    "cafo": "use algo=backprop, mono_forward",
    "counter_current": "use algo=direct_feedback_alignment",
    "forward_forward": "use algo=mono_forward",
    "forward_gnn": "use ",
    "model_free": "use ",
    "noprop": "use ",
    "scalable_forward_forward": "use ",
    "state_feedback": "use net=gru, rnn or lstm, or algo=backprop",
}


def rendered(output, length, background, density="relu"):
    """Return a ray's colour, point by point, from the equations."""
    colour, through = np.zeros(3), 1.0
    for point in output:
        c, sigma = (
            1 / (1 + np.exp(-point[:3])),
            max(point[3], 0.0) if density == "relu" else math.log1p(math.exp(point[3] - 1)),
        )
        alpha = 1 - math.exp(-sigma * length / len(output))
        colour = colour + through * alpha * c
        through *= 1 - alpha
    return colour + through * background


def test_three_points_by_hand():
    """Half of the light stops at the first point, red; three quarters of the rest at the third; behind is white."""
    opaque = [math.log(2), 0.0, math.log(4)]
    output = torch.tensor(
        [[[50.0, -50, -50, opaque[0]], [-50, 50, -50, -3.0], [-50, -50, 50, opaque[2]]]], dtype=torch.float64
    )
    task = ViewSynthesis(length=3.0, background=1.0, density="relu")
    expected = torch.tensor([[0.5 + 0.125, 0.125, 0.375 + 0.125]], dtype=torch.float64)
    torch.testing.assert_close(task.render(output), expected)
    torch.testing.assert_close(task.decode(output), expected)
    target = torch.tensor([[0.625, 0.125, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(task.losses(output, target), torch.tensor([0.25 / 3], dtype=torch.float64))


@pytest.mark.parametrize("density", ["softplus", "relu"])
def test_rendering_is_that_of_the_equations_and_its_gradient_that_of_finite_differences(density):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(4, 6, 4, generator=generator, dtype=torch.float64)
    target = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    task = ViewSynthesis(length=5.0, background=0.3, density=density)
    colours = np.stack([rendered(ray.numpy(), 5.0, 0.3, density) for ray in output])
    np.testing.assert_allclose(task.render(output), colours, rtol=1e-12)
    np.testing.assert_allclose(task.losses(output, target), ((colours - target.numpy()) ** 2).mean(1), rtol=1e-12)
    loss, error = task.error(output, Batch(output, target))
    assert error.shape == output.shape
    assert loss.item() == pytest.approx(((colours - target.numpy()) ** 2).mean())
    step = 1e-6
    for place in np.ndindex(2, 6, 4):
        values = []
        for sign in (1, -1):
            moved = output.numpy().copy()
            moved[place] += sign * step
            seen = np.stack([rendered(ray, 5.0, 0.3, density) for ray in moved])
            values.append(((seen - target.numpy()) ** 2).mean())
        assert error[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)
    # No density, no gradient, by relu; by softplus there is one everywhere.
    assert bool((error[..., 3][output[..., 3] < 0] == 0).all()) == (density == "relu")


def test_figures_are_of_all_pixels_and_the_task_is_read_back():
    task = ViewSynthesis(length=2.5, background=1.0)
    output, target = torch.randn(7, 5, 4), torch.rand(7, 3)
    sums, count = task.measure(output, target)
    found = task.finish({name: value / count for name, value in sums.items()})
    mse = (task.render(output) - target).square().mean().item()
    assert found["mse"].item() == pytest.approx(mse, rel=1e-5) == found["loss"].item()
    assert found["psnr"].item() == pytest.approx(-10 * math.log10(mse), rel=1e-5)
    assert task.metrics[0].direction == "max" and read_task("here", task.describe()) == task
    many = torch.randn(2, 7, 5, 4)
    torch.testing.assert_close(task.row_losses(many, target)[1], task.losses(many[1], target))
    with pytest.raises(UserError, match="no target of a point alone; use algo=backprop or direct_feedback_alignment"):
        task.encode(target)
    for options, message in (
        ({"outputs": 3}, "4 outputs a point"),
        ({"length": 0.0}, "must be positive"),
        ({"background": -1.0}, "level from 0 to 1"),
        ({"density": "exp"}, "density must be softplus or relu, not 'exp'"),
    ):
        with pytest.raises(UserError, match=message):
            ViewSynthesis(**options)  # pyright: ignore[reportArgumentType]


def test_the_feedback_of_a_point_is_its_own_error_in_numpy():
    """DFA from the equations: the error of each point, by B, at that point of each block; the weights' sum over all."""
    torch.manual_seed(0)
    task = ViewSynthesis(length=4.0)
    net = MLP((3, 5), 4, widths=(6, 7), activation="tanh", reads="positions").double().for_task(task)
    trainer = DirectFeedbackAlignment(net)
    x, y = torch.randn(2, 3, 5).double(), torch.rand(2, 3).double()
    trainer.gradients(Batch(x, y))
    (w1, b1), (w2, b2), (w, b) = (
        [p.detach().numpy() for p in layer.parameters()] for layer in (net.block(0).op, net.block(1).op, net.readout)
    )
    h1 = np.tanh(x.numpy() @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    _, error = task.error(torch.from_numpy(h2 @ w.T + b), Batch(x, y))
    e = error.numpy()
    for k, (h, before) in enumerate(((h1, x.numpy()), (h2, h1))):
        delta = e @ trainer.feedback.numpy()[:, : h.shape[-1]] / np.sqrt(7) * (1 - h**2)
        own = net.block(k).op.get_parameter("weight").grad
        assert own is not None
        np.testing.assert_allclose(own, np.einsum("nsi,nsj->ij", delta, before), rtol=1e-10, atol=1e-16)
    own = net.readout.get_parameter("weight").grad
    assert own is not None
    np.testing.assert_allclose(own, np.einsum("nsi,nsj->ij", e, h2), rtol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_views_or_says_what_would(rule):
    torch.manual_seed(0)
    data = views(views=10, size=4, samples=4, octaves=1)
    net = MLP(data.input_shape, 4, widths=(6, 5), reads="positions").for_task(data.task)
    options = cli.compose([f"algo={rule}", "dataset=views"])[0].algo

    def built():
        trainer = build_rule(options, net, rule)
        trainer.supports(net, data)
        trainer.task = data.task
        return trainer

    if rule in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[rule]):
            built()
        return
    trainer = built()
    batch = next(data.batches("train", 64, generator=torch.Generator().manual_seed(0)))
    before = trainer.task.loss(trainer.predict(batch.x), batch).item()
    trained = [p for phase in trainer.phases() for p in phase.parameters]
    optimizer = torch.optim.Adam(trained, lr=0.003)
    for _ in range(80 if rule == "pepita" else 25):
        optimizer.zero_grad()
        completed(trainer.gradients(batch))
        optimizer.step()
    after = trainer.task.loss(trainer.predict(batch.x), batch).item()
    assert math.isfinite(after) and after < before


def test_nets_of_whole_rows_and_nets_of_points_are_told_apart():
    data = views(views=10, size=4, samples=4, octaves=1)
    with pytest.raises(Unsupported, match=r"one output a row.*net=nerf"):
        Backprop.supports(MLP(data.input_shape, 4, widths=(4,)), data)
    with pytest.raises(UserError, match=r"rows of shape \(T, D\)"):
        MLP((5,), 4, widths=(4,), reads="positions")
    with pytest.raises(UserError, match="use norm=layer or none"):
        MLP((4, 5), 4, widths=(4,), norm="batch", reads="positions")
    net = MLP((4, 5), 3, widths=(6,), reads="positions", norm="layer")
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(net(x)[:, 2], net(x[:, 2:3].expand(-1, 4, -1))[:, 0])


def test_a_run_renders_held_out_views(door, tmp_path):
    ended = door("algo=direct_feedback_alignment", "dataset=views", "dataset.views=10", "dataset.size=4", "epochs=1",
                 "dataset.samples=4", "dataset.octaves=1", "net.widths=[8]", "progress=false", "energy.enabled=false",
                 "out=run")  # fmt: skip
    assert ended.status == 0, ended.err
    assert "test psnr " in ended.out and (tmp_path / "run" / "views.png").is_file()
