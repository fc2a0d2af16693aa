"""Findings of a rule that was built by hand, whose activities one can count, and of nets of other kinds."""

import math

import pytest
import torch
from torch import Tensor, nn

import localearn
from localearn import CNN, GNN, MLP, Backprop, ForwardForward, Net, UserError, load
from localearn.analysing import examine
from localearn.analysing.activities import activities
from localearn.analysing.findings import similarities
from localearn.data.arrays import ArrayData
from localearn.data.base import Split


def by_hand(unseen=()):
    """Return a rule whose block gives a row's three first values as they are, rectified, and data that say which.

    Class 0 turns on units 0 and 1, class 1 units 1 and 2, class 2 unit 2 alone, half as much; unit 3 is never on.
    """
    patterns = torch.tensor([[2.0, 2, 0, -1], [0, 2, 2, -1], [0, 0, 1, -1]])
    y = torch.arange(12) % 3
    x = patterns[y]
    keep = ~torch.isin(y, torch.tensor(unseen, dtype=torch.int64))
    parts: dict[Split, tuple[Tensor, Tensor]] = {"train": (x[keep], y[keep]), "val": (x[keep], y[keep]), "test": (x, y)}
    data = ArrayData("by hand", {s: x for s, (x, _) in parts.items()}, {s: y for s, (_, y) in parts.items()}, 3)
    data.unseen = unseen
    first, readout = nn.Linear(4, 4), nn.Linear(4, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4))
        first.bias.zero_()
        readout.weight.copy_(torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [-1, -1, 1, 0]]))
        readout.bias.zero_()
    net = Net.from_sequential(nn.Sequential(first, nn.ReLU(), readout))
    return Backprop(net), data


def test_what_is_found_of_units_that_one_can_count():
    rule, data = by_hand()
    found = examine(rule, data)
    (block,) = found.blocks
    assert (block.units, block.dead, block.silent) == (4, 3 - 2, 0)
    assert block.sets.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    assert block.sizes == [2, 2, 1]
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 1 / 2], [0, 1 / 2, 1]], dtype=torch.float64)
    torch.testing.assert_close(block.shared, expected)
    assert block.mean_shared((0, 1, 2)) == pytest.approx((1 / 3 + 0 + 1 / 2) / 3)
    assert block.exclusive((0, 1, 2)) == pytest.approx(1 / 3), "unit 0 of units 0, 1 and 2"
    # Two of four units alike: (2 - sqrt 2) / 1; one alone: 1.
    assert block.hoyer == pytest.approx((2 * (2 - math.sqrt(2)) + 1) / 3)
    assert block.probe == 1 and found.probe_of_input == 1
    assert found.accuracy == pytest.approx(2 / 3), "class 2 alone gives 1 to classes 1 and 2, and the first is taken"


def test_what_a_class_that_was_left_out_calls_up():
    rule, data = by_hand(unseen=(1,))
    found = examine(rule, data)
    (block,) = found.blocks
    assert found.classes == (0, 2) and found.unseen == (1,)
    assert block.called_up(1, found.classes) == [(2, 0.5), (0, pytest.approx(1 / 3))]
    assert block.new(1, found.classes) == 0 and block.new(1, (0,)) == 0.5
    assert found.predicted == {1: {1: 1.0}}
    assert found.accuracy == 0.5 and block.probe == 1, "of the classes that were trained on alone"


def test_few_rows_are_drawn_from_all_of_a_split():
    rule, data = by_hand()
    found = activities(rule, data, "test", 6, batch_size=4)
    assert len(found.labels) == 6 == len(found.states[0]) and found.states[0].shape == (6, 4)
    assert torch.equal(found.labels, activities(rule, data, "test", 6, batch_size=5).labels)
    assert found.labels.tolist() != [0, 1, 2, 0, 1, 2], "they are not the first ones"
    whole = activities(rule, data, "test", 100, batch_size=5)
    assert whole.inputs is not None
    assert torch.equal(whole.inputs, torch.cat([batch.x for batch in data.batches("test", 5)]))


def test_runs_are_similar_where_their_test_rows_are_the_same():
    rule, data = by_hand()
    one, other = examine(rule, data, label="one"), examine(rule, data, label="other")
    rule, digits = Backprop(MLP((1, 8, 8), 10, widths=(4, 3))), load("digits")
    apart = examine(rule, digits, label="apart")
    first, second = similarities([one, apart, other])
    assert [(found.label, k) for found, k in first.blocks] == [("one", 0), ("other", 0)]
    torch.testing.assert_close(first.values, torch.ones(2, 2, dtype=torch.float64))
    assert [k for _, k in second.blocks] == [0, 1] and 0 < second.values[0, 1] < 1


def test_a_map_is_of_channels_and_a_graph_of_its_labelled_nodes():
    torch.manual_seed(0)
    data = load("digits", train_size=100)
    rule = Backprop(CNN((1, 8, 8), 10, channels=(3, 5)))
    found = examine(rule, data, rows=40)
    assert [block.units for block in found.blocks] == [3, 5] and found.rows == (40, 40)
    tested = activities(rule, data, "test", 40)
    x = torch.cat([batch.x for batch in data.batches("test", 500)])
    with torch.no_grad():
        maps = next(rule.hidden_states(x))
    assert any(torch.allclose(tested.states[0][0], row, atol=1e-5) for row in maps.mean((2, 3)))
    assert (tested.lowest[0] >= maps.amin((0, 2, 3)) - 1e-6).all() and (tested.highest[0] > tested.lowest[0]).any()

    graph = load("karate")
    found = examine(Backprop(GNN(graph.input_shape, graph.classes, widths=(6, 4))), graph)
    assert found.rows == (graph.sizes["train"], graph.sizes["test"]) and [b.units for b in found.blocks] == [6, 4]


def test_what_cannot_be_grouped_by_class_is_refused():
    rule, data = by_hand()
    with pytest.raises(UserError, match=r"threshold is 1.0; it is a share"):
        examine(rule, data, threshold=1.0)
    with pytest.raises(UserError, match="rows is 5; give 6 or more"):
        examine(rule, data, rows=5)
    values = load("diabetes")
    net = MLP(values.input_shape, 1, widths=(4,)).for_task(values.task)
    with pytest.raises(UserError, match="diabetes is for Regression, and an analysis groups rows"):
        examine(Backprop(net), values)


@pytest.mark.parametrize("prediction", ["softmax", "goodness"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (74,)])
def test_forward_forwards_states_are_those_that_it_predicts_by(prediction, shape):
    """Over a picture's first pixels, and with the label's places appended."""
    torch.manual_seed(0)
    rule = ForwardForward(MLP(shape, 10, widths=(9, 7, 5)), prediction=prediction).double().eval()
    x = torch.randn(6, *((64,) if len(shape) == 1 else shape), dtype=torch.float64)
    with torch.no_grad():
        states = list(rule.hidden_states(x))
        assert [tuple(h.shape) for h in states] == [(6, 9), (6, 7), (6, 5)]
        predicted = rule.predict(x)
        if prediction == "goodness":
            goodness = sum(rule.goodness(states[k]) for k in rule.predicting)
            torch.testing.assert_close(goodness, predicted.amax(1))
            return
        read = [states[k] / states[k].square().mean(1, keepdim=True).sqrt() for k in rule.predicting]
        logits = rule.net.readout(read[-1])
        for projection, part in zip(rule.projections, read[:-1], strict=True):
            logits = logits + projection(part)
        torch.testing.assert_close(logits, predicted, atol=1e-5, rtol=1e-5)  # theirs adds 1e-8 to a length
        plain = list(rule.net.outputs(x)) if len(shape) == 3 else None
    assert plain is None or not torch.allclose(plain[1], states[1]), "the net alone shows no label, and keeps lengths"


@pytest.mark.parametrize("rule", ["backprop", "mono_forward", "direct_feedback_alignment", "pepita", "cafo"])
def test_by_default_the_states_are_the_nets_own(rule):
    torch.manual_seed(0)
    found = {"backprop": Backprop, "mono_forward": localearn.MonoForward, "cafo": localearn.CaFo}
    kind = found.get(rule) or getattr(localearn, "Pepita" if rule == "pepita" else "DirectFeedbackAlignment")
    trainer = kind(MLP((1, 8, 8), 10, widths=(9, 7))).eval()
    x = torch.randn(3, 1, 8, 8)
    states = list(trainer.hidden_states(x))
    assert all(torch.equal(one, other) for one, other in zip(states, trainer.net.outputs(x), strict=True))


def test_scalable_forward_forwards_states_are_normalised_as_it_predicts():
    torch.manual_seed(0)
    rule = localearn.ScalableForwardForward(MLP((1, 8, 8), 10, widths=(9, 7)), prediction="mean").eval()
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        states = list(rule.hidden_states(x))
        goodness = [rule.goodness(k, u) for k, u in enumerate(states)]
        torch.testing.assert_close(sum(goodness) / 2, rule.predict(x))
    assert all(u.mean(1).abs().max() < 1e-5 for u in states)


def test_a_state_has_no_rows_or_values_that_stand_beside_it():
    """Forward-Forward on graphs joins nodes of the classes, NoProp carries x beside the label."""
    torch.manual_seed(0)
    graph = load("karate")
    joined = localearn.ForwardGNN(GNN(graph.input_shape, graph.classes, widths=(6, 4)))
    joined.fit(graph, epochs=1, device="cpu", energy=False, progress=False)
    batch = next(graph.batches("test", 1))
    with torch.no_grad():
        shapes = [tuple(h.shape) for h in joined.hidden_states(batch.x, *batch.context)]
    assert shapes == [(len(batch.x), 6), (len(batch.x), 4)]
    rule = localearn.NoProp(localearn.Denoiser((1, 8, 8), 10, embed="mlp", hidden=6, steps=3)).eval()
    with torch.no_grad():
        states = list(rule.hidden_states(torch.randn(5, 1, 8, 8)))
        whole = list(rule.net.outputs(torch.randn(5, 1, 8, 8)))
    assert [tuple(h.shape) for h in states] == 3 * [(5, 10)] and whole[0].shape[1] == 10 + 64
