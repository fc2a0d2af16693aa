from itertools import islice

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.transforms import Augment, augment, standard
from localearn.errors import UserError


def images(augment: Augment = "none", rows=25, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    sizes: dict[Split, int] = {"train": rows, "val": 7, "test": 5}
    x: dict[Split, torch.Tensor] = {
        split: torch.randint(256, (n, 2, 6, 6), generator=generator).to(dtype) for split, n in sizes.items()
    }
    y: dict[Split, torch.Tensor] = {split: torch.arange(n) % 3 for split, n in sizes.items()}
    return ArrayData("toy", x, y, 3, scaling=standard(x["train"]), augment=augment), x, y


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


def same(batches, others):
    pairs = list(zip(batches, others, strict=True))
    assert pairs
    return all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in pairs)


def test_it_says_what_it_holds():
    data, *_ = images()
    assert (data.name, data.kind, data.classes, data.input_shape) == ("toy", "image", 3, (2, 6, 6))
    assert data.sizes == {"train": 25, "val": 7, "test": 5}
    assert not data.augmented and images("crop")[0].augmented
    assert repr(data) == "<toy: image (2, 6, 6), 3 classes, train 25, val 7, test 5>"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_without_a_generator_rows_come_in_order_and_normalised(split):
    data, x, y = images("crop_flip")
    batches = list(data.batches(split, 4))
    mean = x["train"].double().mean((0, 2, 3)).view(-1, 1, 1)
    std = x["train"].double().std((0, 2, 3), correction=0).view(-1, 1, 1)
    torch.testing.assert_close(torch.cat([b.x for b in batches]), ((x[split] - mean) / std).float())
    assert torch.equal(torch.cat([b.y for b in batches]), y[split])
    assert batches[0].x.dtype == torch.float32 and batches[0].y.dtype == torch.int64
    assert batches[0].context == () and batches[0].nodes is None


def test_values_stay_as_they_are_without_scaling():
    _, x, y = images()
    (batch,) = ArrayData("raw", x, y, 3).batches("train", 100)
    assert torch.equal(batch.x, x["train"].float())


def test_a_shuffled_pass_is_the_permutation_that_the_generator_gives():
    data, _, y = images()
    batches = list(data.batches("train", 4, generator=seeded()))
    order = torch.randperm(25, generator=seeded())[:24]  # the 25th would be alone in its batch
    in_order = torch.cat([b.x for b in data.batches("train", 25)])
    assert torch.equal(torch.cat([b.x for b in batches]), in_order[order])
    assert torch.equal(torch.cat([b.y for b in batches]), y["train"][order])


def test_two_passes_differ_and_the_same_seed_repeats_them():
    data, *_ = images("crop_flip")
    one, two = seeded(), seeded()
    first = list(data.batches("train", 8, generator=one))
    assert same(first, data.batches("train", 8, generator=two))
    second = list(data.batches("train", 8, generator=one))
    assert not same(first, second)
    assert same(second, data.batches("train", 8, generator=two))


@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"),
    [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (3, 8, [3])],
)
def test_a_last_training_batch_of_one_row_is_left_out(rows, batch_size, sizes):
    data, *_ = images(rows=rows)
    assert [len(b.y) for b in data.batches("train", batch_size, generator=seeded())] == sizes
    assert sum(len(b.y) for b in data.batches("train", batch_size)) == rows


def test_a_shuffled_pass_over_validation_loses_no_row_and_augments_none():
    data, *_ = images("crop_flip")
    batches = list(data.batches("val", 3, generator=seeded()))
    order = torch.randperm(7, generator=seeded())
    assert [len(b.y) for b in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([b.x for b in batches]), torch.cat([b.x for b in data.batches("val", 7)])[order])


def test_augmentation_is_drawn_after_the_order_batch_by_batch_on_raw_pixels():
    data, x, _ = images("crop_flip")
    generator = seeded()
    order = torch.randperm(25, generator=generator)[:24]
    for batch, chosen in zip(data.batches("train", 8, generator=seeded()), order.split(8), strict=True):
        raw = augment(x["train"][chosen], "crop_flip", generator)
        torch.testing.assert_close(batch.x, standard(x["train"])(raw), rtol=0, atol=0)


@pytest.mark.parametrize("how", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_an_interrupted_pass_goes_on_bit_for_bit(how, done):
    data, *_ = images(how)
    whole = list(data.batches("train", 8, generator=seeded()))
    generator = seeded()
    at_start = generator.get_state()
    list(islice(data.batches("train", 8, generator=generator), done))
    at_interruption = generator.get_state()

    resumed = torch.Generator()
    resumed.set_state(at_start)
    rest = data.batches("train", 8, generator=resumed, skip=done)
    resumed.set_state(at_interruption)
    after = list(rest)
    assert len(after) == len(whole) - done
    assert not after or same(after, whole[done:])


def test_skipping_works_in_order_and_past_the_end():
    data, *_ = images()
    assert same(data.batches("val", 3, skip=1), list(data.batches("val", 3))[1:])
    assert list(data.batches("val", 3, skip=3)) == []
    assert list(data.batches("train", 8, generator=seeded(), skip=99)) == []


class _OnDevice(TorchDispatchMode):
    """Refuses what would make the host wait for a value on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("how", ["none", "crop_flip"])
def test_a_pass_never_waits_for_a_value(how):
    data, *_ = images(how)
    with _OnDevice():
        with pytest.raises(AssertionError, match="waits"):
            torch.ones(1).item()
        assert len(list(data.batches("train", 8, generator=seeded()))) == 3
        assert len(list(data.batches("val", 8))) == 1


def test_a_pass_leaves_the_global_random_state_alone():
    data, *_ = images("crop_flip")
    before = torch.get_rng_state()
    list(data.batches("train", 8, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_1_is_refused(batch_size):
    with pytest.raises(UserError, match=f"batch_size is {batch_size}; it must be at least 1"):
        images()[0].batches("train", batch_size)


def test_features_are_what_the_function_gives_for_training_and_validation():
    data, _, y = images()
    weight = torch.randn(72, 4, generator=seeded(), requires_grad=True)
    features = data.features("block 1", lambda h: (h.flatten(1) @ weight).relu(), batch_size=4)
    assert (features.name, features.kind, features.input_shape) == ("block 1", "vector", (4,))
    assert features.sizes == {"train": 25, "val": 7}
    for split in ("train", "val"):
        (whole,) = data.batches(split, 100)
        direct = (whole.x.flatten(1) @ weight).relu()
        (given,) = features.batches(split, 100)
        torch.testing.assert_close(given.x, direct.detach())
        assert torch.equal(given.y, y[split]) and not given.x.requires_grad
    with pytest.raises(ValueError, match="block 1 has no test split"):
        features.batches("test", 4)


def test_features_keep_the_dtype_and_can_be_taken_again():
    data, *_ = images()
    once = data.features("a", lambda h: h.bfloat16(), batch_size=4)
    twice = once.features("b", lambda h: h + 1, batch_size=3)
    (batch,) = twice.batches("val", 7)
    assert batch.x.dtype == torch.bfloat16
    assert len(once.fingerprint()) == 64 != once.fingerprint() != twice.fingerprint()


def test_features_of_augmented_data_are_refused():
    with pytest.raises(ValueError, match="toy is augmented"):
        images("crop")[0].features("a", lambda h: h, batch_size=4)


def test_the_fingerprint_repeats_and_survives_a_move():
    data, *_ = images()
    assert data.fingerprint() == data.fingerprint() == images()[0].fingerprint() == data.to("cpu").fingerprint()
    assert images()[0].to("cpu").fingerprint() == data.fingerprint()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_fingerprint_changes_with_any_pixel_or_label(split):
    before = images()[0].fingerprint()
    _, x, y = images()
    scaling = standard(x["train"])
    x[split][-1, -1, -1, -1] ^= 1
    assert ArrayData("toy", x, y, 3, scaling=scaling).fingerprint() != before
    x[split][-1, -1, -1, -1] ^= 1
    assert ArrayData("toy", x, y, 3, scaling=scaling).fingerprint() == before
    y[split][0] = 2
    assert ArrayData("toy", x, y, 3, scaling=scaling).fingerprint() != before


def test_the_fingerprint_changes_with_the_normalisation():
    _, x, y = images()
    assert ArrayData("toy", x, y, 3).fingerprint() != images()[0].fingerprint()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("how", ["none", "crop_flip"])
def test_on_a_gpu_a_pass_gives_the_same_and_never_waits(how):
    data, *_ = images(how)
    moved = data.to("cuda")
    assert moved.fingerprint() == data.fingerprint()
    on_gpu = list(moved.batches("train", 8, generator=seeded()))
    for batch, expected in zip(on_gpu, data.batches("train", 8, generator=seeded()), strict=True):
        assert batch.x.is_cuda and batch.y.is_cuda
        torch.testing.assert_close(batch.x.cpu(), expected.x)
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(moved.batches("train", 8, generator=generator))) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")
