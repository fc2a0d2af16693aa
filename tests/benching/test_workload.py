import itertools
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from localearn import cli
from localearn.benching.measure import bench
from localearn.benching.plan import known_rules
from localearn.benching.workload import CLASSES, Point, Workload, random_batches
from localearn.errors import Unsupported, UserError
from tests.marks import rules_of

CPU = torch.device("cpu")
WIDTHS, ROWS, INPUT = (32, 48, 40), 16, 64
APART = {"forward_gnn", "model_free", "noprop"}  # of graphs, and of nets of its own
NO_TIME = {"pepita", "state_feedback", *APART}  # what refuses the nets that are not recurrent
PATHS = ("feedback_alignment", "sign_symmetry", "product_feedback_alignment")
NO_MAPS = {"pepita", "counter_current", *PATHS, *APART}  # what refuses recurrent nets


def workload(algo, *overrides, widths=WIDTHS, batch=ROWS, net="mlp", shape=(INPUT,), **point: Any):
    sizes = [f"net.widths=[{','.join(map(str, widths))}]"] if net == "mlp" else []
    config: Any = OmegaConf.to_container(cli.compose([f"algo={algo}", f"net={net}", *sizes, *overrides])[0])
    return Workload(algo, config, Point(net, shape, batch, "fp32", CPU, **point))


def products(widths=WIDTHS):
    """Return the sizes of the layers' matrices, first to last, and that of the blocks' own class projections."""
    sizes = [INPUT, *widths, CLASSES]
    return [a * b for a, b in itertools.pairwise(sizes)], sum(width * CLASSES for width in widths[:-1])


def test_a_step_makes_the_matrix_products_that_its_rule_must_and_no_more():
    layers, projections = products()
    once, behind = sum(layers), sum(layers[1:])
    must = {
        "backprop": 2 * once + behind,
        "feedback_alignment": 2 * once + behind,
        "sign_symmetry": 2 * once + behind,
        # Forward and weight gradients; each projection forward, its own gradient, and back to its block.
        "mono_forward": 2 * once + layers[-1] + 3 * projections,
        # The error meets each block's feedback once; the readout's gradient needs none.
        "direct_feedback_alignment": 2 * once + sum(CLASSES * width for width in WIDTHS),
        # Forward, the weights' products, and a tangent for each block on its way; each guess as for Mono-Forward's
        # projections, the last block's by the readout, forward and back.
        "forward_gradient": 2 * once + sum(sum(layers[k:]) for k in range(1, 4)) + 3 * projections + 2 * layers[-1],
        # Two forward passes, one product of differences for each matrix, and the error's projection to the input.
        "pepita": 3 * once + CLASSES * INPUT,
    }
    found = {algo: workload(algo).multiply_adds() / ROWS for algo in must}
    assert found == must
    # The tangent alone, which begins behind the first matrix.
    assert workload("forward_gradient", "algo.guess=noise").multiply_adds() / ROWS == 2 * once + behind


@pytest.mark.parametrize("algo", rules_of("mlp"))
def test_every_rule_makes_its_whole_update(algo):
    work = workload(algo)
    before = [parameter.detach().clone() for parameter in work.net.parameters()]
    for _ in range(3):
        work.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, work.net.parameters(), strict=True)]
    assert any(moved) != work.one_pass
    assert work.multiply_adds() > 0


def test_a_rule_of_stages_takes_a_step_in_each():
    work = workload("mono_forward", "algo.schedule=greedy")
    work.step()
    trained = [[p.grad is not None for p in part.trainer.net.blocks.parameters()] for part in work.parts]
    assert trained == [
        [stage == block for block in range(len(WIDTHS)) for _ in range(2)] for stage in range(len(WIDTHS))
    ]


def test_the_tensors_of_a_step_grow_with_the_batch_and_leave_weights_out():
    one, few, many = (workload("backprop", batch=rows).live_bytes() for rows in (1, 2001, 4001))
    weights = 4 * sum(p.numel() for p in workload("backprop").net.parameters())
    assert weights < one < 1.5 * weights, "a row's activations are few, the gradients as many as the weights"
    assert many - few == pytest.approx(few - one, rel=0.1)


def test_a_rule_that_does_not_serve_the_net_is_refused():
    with pytest.raises(Unsupported):
        workload("pepita", "net.widths=[4]", "net.blocks=1", net="resnet20", shape=(3, 8, 8))
    with pytest.raises(UserError, match="graphs are one batch of nodes"):
        workload("backprop", net="gcn")


def test_a_deep_net_takes_a_local_rule_no_more_memory_than_a_shallow_one():
    """Activations and gradients of a step; backprop keeps the activations until it is back."""

    def live(algo, depth):
        return workload(algo, widths=(64,) * depth, batch=256, step="block").live_bytes()

    assert live("mono_forward", 32) < 1.1 * live("mono_forward", 4)
    assert live("backprop", 32) > 8 * live("mono_forward", 32)
    assert workload("mono_forward", widths=(64,) * 32, batch=256).live_bytes() > 2 * live("mono_forward", 32)


@pytest.mark.parametrize("algo", ["backprop", "mono_forward", "cafo"])
def test_a_captured_step_multiplies_and_holds_what_one_as_ever_does(algo, stand_in):
    plain, work = workload(algo), workload(algo, capture="graph")
    found = bench([work], algo, turns=1, turn_s=1e-3)
    (measured,) = found.rules
    assert (measured.multiply_adds, measured.live_bytes) == (plain.multiply_adds(), plain.live_bytes())
    assert measured.captured == ("off" if algo == "cafo" else "graph")  # which is solved from sums
    assert stand_in.replays > 0 or algo == "cafo"


TEXT = {"shape": (6,), "vocabulary": 5}
# Each with the rules that refuse it.
WORKLOADS: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    "transformer of text": (
        {"net": "transformer", **TEXT},
        ["net.width=8", "net.layers=2", "net.heads=2"],
        {"counter_current", *NO_TIME},
    ),
    "transformer of values": (
        {"net": "transformer", "shape": (6, 3)},
        ["net.width=8", "net.layers=2", "net.heads=2"],
        {"counter_current", *NO_TIME},
    ),
    "gru of text": ({"net": "gru", **TEXT}, ["net.widths=[8,8]"], NO_MAPS),
    "gru of values": ({"net": "gru", "shape": (6, 3)}, ["net.widths=[8,8]"], NO_MAPS),
    "resnet18": (
        {"net": "resnet18", "shape": (3, 8, 8)},
        ["net.widths=[4,4,4,4]", "net.blocks=1"],
        NO_TIME,
    ),
    "vit": (
        {"net": "vit", "shape": (3, 8, 8)},
        ["net.width=8", "net.layers=2", "net.heads=2"],
        {"counter_current", *NO_TIME},
    ),
    "deepfm": (
        {"net": "deepfm", "shape": (3,), "categories": (7, 5)},
        ["net.widths=[8,8]"],
        NO_TIME,
    ),
}


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("algo", known_rules())
def test_every_rule_steps_on_every_kind_of_net_or_refuses_it(algo, name):
    options, sizes, refused = WORKLOADS[name]
    if algo in refused:
        with pytest.raises(Unsupported, match="algo="):
            workload(algo, "recipe=alike", *sizes, batch=4, **options)
        return
    work = workload(algo, "recipe=alike", *sizes, batch=4, **options)
    trained = [p for part in work.parts if part.update for p in part.phase.parameters]
    before = [p.detach().clone() for p in trained]
    assert work.multiply_adds() > 0
    work.step()  # a head that starts at zero teaches its block from the second step on
    assert all(not torch.equal(p, q) for p, q in zip(before, trained, strict=True))
    assert (not trained) == work.one_pass
    assert work.batches[0].x.shape == (4, *work.net.input_shape) or algo == "forward_forward"


def test_token_ids_have_the_next_ones_for_targets_and_codes_are_of_their_categories():
    batch = random_batches(Point("transformer", (6,), 4, "fp32", CPU, vocabulary=5))[0]
    assert batch.target is not None and batch.x.shape == batch.target.shape == (4, 6)
    assert torch.equal(batch.x[:, 1:], batch.target[:, :-1])
    x = torch.cat([batch.x for batch in random_batches(Point("deepfm", (3,), 500, "fp32", CPU, categories=(7, 5)))])
    assert set(x[:, 0].tolist()) == set(range(7)) and set(x[:, 1].tolist()) == set(range(5))
    assert not torch.equal(x[:, 2], x[:, 2].round())
