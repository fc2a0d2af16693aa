import copy
import functools

import pytest
import torch
from torch import nn

from localearn import (
    CNN,
    MLP,
    Backprop,
    Batch,
    CaFo,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    ForwardForward,
    ForwardGradient,
    MonoForward,
    Net,
    Pooled,
    ProductFeedbackAlignment,
    Trainer,
    Unsupported,
    UserError,
    cli,
    load,
)
from localearn.benching.plan import known_rules
from localearn.testing import toy
from localearn.training.building import build_rule
from localearn.training.diagnostics import alignment_angles, check_alignment


class Climb(Trainer):
    """Backprop against the gradient, in all but the readout, which stays."""

    def gradients(self, batch):
        metrics = Backprop(self.net).gradients(batch)
        for p in self.net.parameters():
            assert p.grad is not None
            p.grad.neg_()
        for p in self.net.readout.parameters():
            assert p.grad is not None
            p.grad.zero_()
        return metrics


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP((6,), 3, widths=(8, 8), norm="batch", dropout=0.5)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(torch.randn(20, 6), torch.arange(20) % 3)


def test_backprop_has_no_angle_to_itself_in_spite_of_dropout(batch):
    angles = alignment_angles(Backprop(mlp()), batch)
    assert angles == pytest.approx({"angle_1": 0, "angle_2": 0, "angle_readout": 0}, abs=0.01)


def test_a_rule_that_climbs_is_180_degrees_off_and_an_update_of_nothing_has_no_angle(batch):
    angles = alignment_angles(Climb(mlp()), batch)
    assert angles["angle_readout"] is None
    assert angles["angle_1"] == pytest.approx(180, abs=0.01)


def test_an_angle_is_the_one_between_all_of_a_blocks_gradients(batch):
    net = MLP((6,), 3, widths=(8, 8)).double()
    batch = Batch(batch.x.double(), batch.y)
    trainer = DirectFeedbackAlignment(net)
    angles = alignment_angles(trainer, batch)

    def flat(rule: Trainer) -> torch.Tensor:
        rule.zero_grad()
        rule.gradients(batch)
        return torch.cat([p.grad.flatten() for p in net.block(0).parameters() if p.grad is not None])

    one, other = flat(trainer), flat(Backprop(net))
    cosine = torch.cosine_similarity(one, other, dim=0)
    assert angles["angle_1"] == pytest.approx(cosine.acos().rad2deg().item(), rel=1e-9)
    assert 20 < cosine.acos().rad2deg() < 160


@pytest.mark.parametrize("make", [FeedbackAlignment, DirectFeedbackAlignment, MonoForward, ForwardGradient])
def test_any_rule_can_be_diagnosed_and_stays_as_it_was(make, batch):
    trainer = make(mlp())
    trainer.gradients(batch)
    before = copy.deepcopy(trainer.state_dict())
    gradients = [p.grad for p in trainer.parameters()]
    values = [None if g is None else g.clone() for g in gradients]
    modes, random = [m.training for m in trainer.modules()], torch.get_rng_state()
    first, second = alignment_angles(trainer, batch), alignment_angles(trainer, batch)
    assert first == second and {"angle_1", "angle_2", "angle_readout"} <= first.keys()
    assert all(torch.equal(value, before[name]) for name, value in trainer.state_dict().items())
    for p, gradient, value in zip(trainer.parameters(), gradients, values, strict=True):
        assert p.grad is gradient and (value is None or torch.equal(gradient, value))
    assert modes == [m.training for m in trainer.modules()]
    assert torch.equal(random, torch.get_rng_state())


def test_paths_have_angles_of_their_own(batch):
    angles = alignment_angles(ProductFeedbackAlignment(mlp(), expansion=2), batch)
    assert angles.keys() == {
        "angle_1",
        "angle_2",
        "angle_readout",
        "path_angle_blocks.1.op",
        "path_angle_readout",
    }


def test_a_greedy_stage_has_the_angles_of_what_it_trains(batch):
    trainer = MonoForward(mlp(), schedule="greedy")
    first, second = trainer.phases()
    assert alignment_angles(trainer, batch, first).keys() == {"angle_1"}
    angles = alignment_angles(trainer, batch, second)
    # The last block's own loss is the net's, so its gradient is the true one.
    assert angles == pytest.approx({"angle_2": 0, "angle_readout": 0}, abs=0.01)


def test_a_run_has_them_in_its_metrics_and_trains_to_the_same_bits():
    data = load("digits")
    nets = []
    for diagnose in ("none", "alignment"):
        torch.manual_seed(0)
        net = CNN((1, 8, 8), 10, channels=(4, 4), dropout=0.2)
        record = FeedbackAlignment(net).fit(data, epochs=2, device="cpu", diagnose=diagnose)
        angles = [line.keys() & {"angle_1", "angle_readout", "path_angle_readout"} for line in record.history]
        assert [len(names) for names in angles] == ([3, 3] if diagnose == "alignment" else [0, 0])
        nets.append(net.state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (ForwardForward, "ForwardForward predicts by more than the net"),
        (CaFo, "CaFo as it is set solves for its weights"),
    ],
)
def test_where_there_is_nothing_to_compare_it_is_refused(rule, told):
    with pytest.raises(UserError, match=f"diagnose=alignment compares .*{told}.*; use diagnose=none"):
        rule(MLP((1, 8, 8), 10, widths=(8,))).fit(load("digits"), diagnose="alignment")


def test_a_stage_that_is_solved_in_one_pass_has_no_angles():
    trainer = CaFo(MLP((1, 8, 8), 10, widths=(8,)), blocks="dfa")
    record = trainer.fit(load("digits"), epochs=1, device="cpu", diagnose="alignment")
    assert ["angle_1" in line or "angle_readout" in line for line in record.history] == [True, False]


def test_an_unknown_diagnosis_is_refused():
    with pytest.raises(UserError, match="alignment"):
        Backprop(mlp()).fit(load("digits"), diagnose="alignmnt")


@functools.cache
def options_of(algo):
    return cli.compose([f"algo={algo}"])[0].algo


TAKEN = {
    "cafo": "solves for its weights",
    "forward_forward": "predicts by more than the net",
    "scalable_forward_forward": "predicts by more than the net",
}


@pytest.mark.parametrize(
    "kind", ["transformer", "tokens", "recurrent", "resnet", "mobilenet", "vit", "deepfm", "values"]
)
@pytest.mark.parametrize("algo", known_rules())
def test_every_rule_has_its_angles_on_every_kind_of_net_or_says_why_not(algo, kind):
    torch.manual_seed(0)
    net, batch = toy(kind).net(), toy(kind).batch
    try:
        trainer = build_rule(options_of(algo), net, algo)
        trainer.supports(net, toy(kind).data)
    except Unsupported:  # as the README's tables have it
        return
    if algo in TAKEN:
        with pytest.raises(UserError, match=TAKEN[algo]):
            check_alignment(trainer)
        return
    check_alignment(trainer)
    with torch.no_grad():
        for p in trainer.parameters():  # heads that start at zero have no gradient to compare
            p += 0.01 * torch.randn_like(p)
    angles = {name: angle for name, angle in alignment_angles(trainer, batch).items() if not name.startswith("path_")}
    learn = () if algo == "shallow" else range(net.depth)  # the blocks that have a gradient
    assert angles.keys() == {*(f"angle_{k + 1}" for k in learn), "angle_readout"}
    assert all(angle is not None and 0 <= angle <= 180 for angle in angles.values())
    if algo not in ("likelihood_ratio", "pepita"):  # whose readouts learn from copies that are noisy or modulated
        assert angles["angle_readout"] == pytest.approx(0, abs=0.1)
    if algo == "backprop":
        assert angles == pytest.approx(dict.fromkeys(angles, 0), abs=0.1)


class Stacked(nn.Module):
    """Two recurrent layers, with dropout in between."""

    def __init__(self):
        super().__init__()
        self.layers = nn.GRU(6, 6, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, h):
        return self.layers(h)[0]


class Drops(nn.Module):
    """Drops units by itself, as attention and stochastic depth do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, h):
        return torch.dropout(self.linear(h), 0.5, self.training)


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((6,), Drops),
        ((4, 6), lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.5, batch_first=True)),
        ((4, 6), Stacked),
    ],
    ids=["own", "attention", "recurrent"],
)
def test_dropout_of_any_form_is_left_out(shape, block):
    torch.manual_seed(0)
    net = Net.from_blocks(None, [block(), block()], nn.Linear(6, 3), input_shape=shape, view=Pooled())
    rows = Batch(torch.randn(20, *shape), torch.arange(20) % 3)
    modes = [module.training for module in net.modules()]
    angles = alignment_angles(Backprop(net), rows)
    assert angles == pytest.approx({"angle_1": 0, "angle_2": 0, "angle_readout": 0}, abs=0.1)
    assert modes == [module.training for module in net.modules()]
    assert all(m.dropout == 0.5 for m in net.modules() if isinstance(m, nn.RNNBase))
