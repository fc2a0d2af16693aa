import pytest
import torch

from localearn.data.transforms import row_shares, standard, unit

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (2100, 3, 4, 5), generator=GENERATOR, dtype=torch.uint8)


def moments(x, dims):
    return x.double().mean(dims), x.double().std(dims, correction=0)


@pytest.mark.parametrize("kind", ["uint8 images", "float images", "vectors"])
def test_standard_gives_each_channel_or_feature_mean_0_and_deviation_1(kind):
    rows = {"uint8 images": IMAGES, "float images": IMAGES / 7 - 100, "vectors": IMAGES.flatten(1) * 3.0}[kind]
    scaled = standard(rows)(rows)
    mean, std = moments(scaled, [0, 2, 3] if rows.ndim == 4 else [0])
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-6, rtol=0)


def test_levels_counted_and_values_summed_give_the_same_map():
    counted, summed = standard(IMAGES), standard(IMAGES.float())
    torch.testing.assert_close(counted.center, summed.center)
    torch.testing.assert_close(counted.scale, summed.scale)


def test_a_far_off_mean_costs_no_precision():
    rows = 1000 + 0.01 * torch.randn(5000, 2, dtype=torch.float64, generator=GENERATOR)
    rows = rows.float()
    mean, std = moments(standard(rows)(rows), [0])
    assert std.sub(1).abs().max() < 1e-3 and mean.abs().max() < 5e-3


def test_what_does_not_vary_is_centred_and_not_scaled():
    rows = torch.tensor([[3.0, 1.0], [3.0, 2.0]])
    assert torch.equal(standard(rows)(rows), torch.tensor([[0.0, -1.0], [0.0, 1.0]]))
    flat = torch.full((4, 1, 2, 2), 9, dtype=torch.uint8)
    assert not standard(flat)(flat).any()


def test_unit_maps_known_levels_to_0_and_1():
    rows = torch.tensor([[0, 8, 16]], dtype=torch.uint8)
    assert torch.equal(unit(rows, (0, 16))(rows), torch.tensor([[0.0, 0.5, 1.0]]))


def test_unit_maps_the_extremes_of_the_training_part_where_levels_are_unknown():
    train = torch.tensor([[-2.0, 0.0], [1.0, 2.0]])
    assert torch.equal(unit(train)(train), torch.tensor([[0.0, 0.5], [0.75, 1.0]]))
    assert torch.equal(unit(train)(torch.tensor([[4.0]])), torch.tensor([[1.5]]))
    assert not unit(torch.full((2, 2), 5.0))(torch.full((2, 2), 5.0)).any()


def test_scaling_leaves_its_input_alone():
    rows = IMAGES.float()
    before = rows.clone()
    standard(rows)(rows)
    assert torch.equal(rows, before)


def test_row_shares_sum_to_1_and_empty_rows_stay_empty():
    shares = row_shares(torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(shares, torch.tensor([[0.25, 0.0, 0.75], [0.0, 0.0, 0.0]]))
    assert shares.dtype == torch.float32
