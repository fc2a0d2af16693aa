"""Outputs with targets, and what a task measures of them."""

import torch


def measured(task, output, target, parts=1):
    """Return the loss and the metrics of outputs that come in so many batches."""
    totals, count = task.measure(output[:0], target[:0])
    assert all(not total.any() for total in totals.values()) and count == 0
    for rows in torch.arange(len(output)).chunk(parts):
        sums, elements = task.measure(output[rows], target[rows])
        totals, count = {name: totals[name] + sums[name] for name in totals}, count + elements
    whole = (output, target) if task.needs_whole else ()
    return {name: v.item() for name, v in task.finish({n: t / count for n, t in totals.items()}, *whole).items()}


def values(rows, outputs, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    target = 3 * torch.randn(rows, outputs, generator=generator, dtype=dtype) + torch.arange(outputs)
    return target + torch.randn(rows, outputs, generator=generator, dtype=dtype), target


def labelled(rows, outputs, seed=0, tied=False, share=0.3):
    """Return logits, of a few levels where they are tied, and zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(rows, outputs, generator=generator) < share).float()
    logits = torch.randn(rows, outputs, generator=generator, dtype=torch.float64) + target
    return (logits.mul(1.5).round() if tied else logits), target
