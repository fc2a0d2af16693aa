"""A token is drawn as the logits have it, and what a model sees while it writes."""

import torch

from localearn.data.generation import continuation


def test_a_token_is_drawn_as_the_logits_have_it():
    """By the fractions of 4,000 draws: the deviation is 0.008, alarms by chance are below 1e-6."""
    chances = torch.tensor([0.5, 0.3, 0.2])

    def predict(x):
        return chances.log().expand(*x.shape, 3)

    drawn = torch.tensor(continuation(predict, [0], 4, length=4000, temperature=1, seed=0))
    torch.testing.assert_close(drawn.bincount() / len(drawn), chances, atol=0.04, rtol=0)
    sharper = torch.tensor(continuation(predict, [0], 4, length=4000, temperature=0.5, seed=0))
    expected = chances.square() / chances.square().sum()
    torch.testing.assert_close(sharper.bincount() / len(drawn), expected, atol=0.04, rtol=0)
    for none in (0, 1e-40, 1e-300):  # the logits divided by the smaller ones are infinite
        assert set(continuation(predict, [0], 4, length=50, temperature=none, seed=0)) == {0}


def test_a_model_sees_what_stands_before_and_no_more_than_its_window():
    seen = []

    def predict(x):
        seen.append(x[0].tolist())
        return torch.nn.functional.one_hot((x + 1) % 6, 6).float()

    assert continuation(predict, [0, 1], 4, length=5, temperature=0, seed=0) == [2, 3, 4, 5, 0]
    assert seen == [[0, 1, 0, 0], [0, 1, 2, 0], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
