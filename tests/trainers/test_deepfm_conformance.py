"""The conformance suite on DeepFM: rules learn which pairs of categories go together, as no sum over columns tells."""

import pytest
import torch

from localearn.data import ArrayData, Batch, Split
from localearn.nets import DeepFM
from localearn.testing import KINDS, check_rule, register_kind, toys
from localearn.testing.toys import Toy
from localearn.trainers import (
    Backprop,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    ForwardGradient,
    MonoForward,
    SignSymmetry,
)

SPLITS: tuple[Split, ...] = ("train", "val", "test")
BY_PATHS = ("gat", "recurrent")  # which rules that send the error back around matrices refuse


def pairs() -> Toy:
    """Rows (144, 4), two codes of 6 categories and two values of noise: the class is whether the codes' sum is odd."""
    codes = torch.cartesian_prod(torch.arange(6), torch.arange(6)).repeat(4, 1)
    noise = torch.randn(len(codes), 2, generator=torch.Generator().manual_seed(0))
    x, y = torch.cat([codes.float(), noise], dim=1), codes.sum(1) % 2
    parts = dict.fromkeys(SPLITS, x), dict.fromkeys(SPLITS, y)
    return Toy(
        lambda shape=None: DeepFM(shape or (4,), 2, categories=(6, 6), dim=4, widths=(8,)),
        Batch(x, y),
        ArrayData("toy table", *parts, 2, categories=(6, 6)),
    )


@pytest.mark.parametrize(
    "rule", [Backprop, MonoForward, DirectFeedbackAlignment, FeedbackAlignment, SignSymmetry, ForwardGradient]
)
def test_a_rule_passes_the_suite_on_codes(rule):
    register_kind("deepfm", pairs)
    try:
        refused = BY_PATHS if rule in (FeedbackAlignment, SignSymmetry) else ()
        done = check_rule(
            rule, kinds=[kind for kind in KINDS if kind not in refused], runs_on=("deepfm",), draws_noise=False
        )
        assert {"test_learns_its_task[deepfm-fp32]", "test_learns_its_task[deepfm-bf16]"} <= set(done)
    finally:
        del toys._KINDS["deepfm"]
        toys.toy.cache_clear()
