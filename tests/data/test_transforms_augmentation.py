import pytest
import torch

from localearn.data.transforms import PAD, augment, crop

IMAGES = torch.randint(256, (40, 3, 7, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def slow_crop(image, top, left, mirror):
    """One image, pixel by pixel: the definition that the batched version must meet."""
    height, width = image.shape[1:]
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            from_row = row + top - PAD
            from_column = (width - 1 - column if mirror else column) + left - PAD
            if 0 <= from_row < height and 0 <= from_column < width:
                result[:, row, column] = image[:, from_row, from_column]
    return result


@pytest.mark.parametrize("how", ["crop", "crop_flip"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_batch_equals_the_slow_reference_with_the_same_random_numbers(how, dtype):
    images = IMAGES.to(dtype)
    batched = augment(images, how, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    corner = torch.randint(2 * PAD + 1, (2, len(images)), generator=generator).tolist()
    mirror = torch.randint(2, (len(images),), generator=generator).tolist() if how == "crop_flip" else [0] * len(images)
    slow = torch.stack([slow_crop(*args) for args in zip(images, *corner, mirror, strict=True)])
    assert batched.dtype == dtype
    assert torch.equal(batched, slow)


def test_none_draws_nothing_and_changes_nothing():
    generator = torch.Generator().manual_seed(7)
    before = generator.get_state()
    assert augment(IMAGES, "none", generator) is IMAGES
    assert torch.equal(generator.get_state(), before)


def test_the_middle_crop_is_the_image_and_its_mirror_the_flip():
    middle = torch.full((len(IMAGES),), PAD)
    assert torch.equal(crop(IMAGES, middle, middle), IMAGES)
    assert torch.equal(crop(IMAGES, middle, middle, torch.ones_like(middle)), IMAGES.flip(-1))


def test_every_offset_and_both_directions_occur():
    # 4000 images: a given one of 162 outcomes is missing with probability exp(-24.7), any of them with 3e-9.
    ramp = torch.arange(1, 26, dtype=torch.float32).view(1, 1, 5, 5).expand(4000, -1, -1, -1)
    shown = augment(ramp, "crop_flip", torch.Generator().manual_seed(0))
    seen = {tuple(image.flatten().tolist()) for image in shown}
    every = {
        tuple(slow_crop(ramp[0], top, left, mirror).flatten().tolist())
        for top in range(9)
        for left in range(9)
        for mirror in (0, 1)
    }
    assert seen == every


def test_the_input_is_left_alone():
    images = IMAGES.clone()
    augment(images, "crop_flip", torch.Generator().manual_seed(1))
    assert torch.equal(images, IMAGES)
