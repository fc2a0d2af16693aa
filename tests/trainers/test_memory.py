"""What a rule keeps of the forward pass: the bytes that each further row of the batch adds to the peak of a step."""

import functools

import pytest
import torch

from localearn import MLP, Backprop, Batch, DirectFeedbackAlignment, ForwardGradient, MonoForward
from localearn.training.memory import live_tensor_bytes

WIDTH, ROWS = 32, (64, 512)


@functools.cache
def activation_bytes_per_row(rule, depth):
    """Peak bytes of tensors alive in a step, per row: parameters, gradients and noise, which have no rows, drop out."""
    torch.manual_seed(0)
    trainer = rule(MLP(WIDTH, 10, widths=(WIDTH,) * depth))
    peaks = []
    for rows in ROWS:
        batch = Batch(torch.randn(rows, WIDTH), torch.arange(rows) % 10)
        trainer.zero_grad(set_to_none=True)
        with live_tensor_bytes() as live:
            trainer.gradients(batch)
        peaks.append(live.peak_bytes)
    return (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0])


def in_weights(net):
    return ForwardGradient(net, space="weight")


def in_weights_with_tangents(net):
    return ForwardGradient(net, space="weight", tangents=4)


@pytest.mark.parametrize("rule", [MonoForward, in_weights, in_weights_with_tangents])
def test_activation_memory_does_not_grow_with_depth(rule):
    assert activation_bytes_per_row(rule, 32) <= 1.1 * activation_bytes_per_row(rule, 4)


@pytest.mark.parametrize("rule", [Backprop, DirectFeedbackAlignment])
def test_activation_memory_of_those_that_keep_the_forward_pass_grows_with_it(rule):
    assert activation_bytes_per_row(rule, 32) > 4 * activation_bytes_per_row(rule, 4)


def test_a_row_takes_no_more_than_a_few_of_its_activations():
    activation = 4 * WIDTH
    assert activation < activation_bytes_per_row(MonoForward, 32) < 8 * activation
    assert activation < activation_bytes_per_row(in_weights, 32) < 8 * activation
