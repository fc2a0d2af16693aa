"""Views of a scene: rays and points, what is held out, what is drawn and rendered, which files are refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from localearn import MLP, Backprop, DirectFeedbackAlignment
from localearn.data import load, views
from localearn.data.base import Split
from localearn.data.scene import spheres
from localearn.errors import UserError
from localearn.tasks import ViewSynthesis

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SMALL: dict[str, Any] = {"views": 10, "size": 6, "samples": 8, "octaves": 2}


@pytest.fixture
def archive(tmp_path):
    def save(**changed):
        arrays = {**spheres(5, 4), **changed}
        np.savez(tmp_path / "v.npz", **{name: array for name, array in arrays.items() if array is not None})
        return tmp_path / "v.npz"

    return save


def test_points_lie_in_their_parts_of_the_ray_and_are_encoded_as_the_paper_has_it():
    data = views(**SMALL, near=1.0, far=5.0)
    own = torch.tensor([[0.0, 0, 0, 0, 0, 1.0], [1.0, 0, 0, 0, 1, 0]])
    made = data.points(own, torch.tensor([0.0, 0.5] * 4))
    assert made.shape == (2, 8, 3 + 12) == (2, *data.input_shape)
    distance = 1 + (torch.arange(8) + torch.tensor([0.0, 0.5] * 4)) * 0.5
    torch.testing.assert_close(made[0, :, 2] * data.scale, distance)
    torch.testing.assert_close(made[1, :, :2] * data.scale, torch.stack([torch.ones(8), distance], 1))
    point = made[1, 3, :3].tolist()
    expected = [*point]
    for k in range(2):
        angles = [2**k * math.pi * value for value in point]
        expected += [*map(math.sin, angles), *map(math.cos, angles)]
    np.testing.assert_allclose(made[1, 3], expected, atol=1e-5)


def test_every_view_is_whole_in_one_split_and_the_test_is_always_the_same():
    data, other = views(**SMALL), views(**SMALL, split_seed=3)
    assert data.sizes == {"train": 8 * 36, "val": 36, "test": 36} and data.kind == "sequence"
    every = spheres(10, 6)["images"].reshape(10, 36, 3)
    where = {}
    for split in SPLITS:
        (batch,) = data.batches(split, 10**6)
        for view in batch.target.view(-1, 36, 3).numpy():
            (found,) = [n for n in range(10) if np.array_equal(every[n], view)]
            where[found] = split
    assert len(where) == 10
    assert torch.equal(next(data.batches("test", 99)).target, next(other.batches("test", 99)).target)
    assert data.fingerprint() == load("views", **SMALL).fingerprint() != other.fingerprint()
    assert data.fingerprint() != views(**{**SMALL, "octaves": 3}).fingerprint()
    assert data.fingerprint() != views(**SMALL, near=1.9).fingerprint()


def test_training_draws_a_point_in_each_part_by_the_generator_and_evaluation_takes_the_middles():
    data = views(**SMALL)
    generator = torch.Generator().manual_seed(0)
    first = list(data.batches("train", 100, generator=generator))
    again = list(data.batches("train", 100, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True))
    later = next(data.batches("train", 100, generator=generator))
    assert not torch.equal(first[0].x, later.x)
    # A pass that was interrupted after its first batch goes on with the very points that it would have had.
    begun = torch.Generator().manual_seed(0)
    passing = data.batches("train", 100, generator=begun)
    next(passing)
    state = begun.get_state()
    resumed = torch.Generator().manual_seed(0)
    rest = data.batches("train", 100, generator=resumed, skip=1)
    resumed.set_state(state)
    assert torch.equal(next(rest).x, first[1].x)
    held = [next(data.batches("val", 36)).x, next(data.batches("val", 36, generator=torch.Generator())).x]
    assert held[0].shape == held[1].shape
    own = data._x["val"]
    torch.testing.assert_close(held[0], data.points(own, torch.full((8,), 0.5)))
    halves = [
        next(data.part(rank, 2).batches("train", 100, generator=torch.Generator().manual_seed(0))) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([half.x for half in halves]), first[0].x)


def test_a_file_as_tiny_nerf_has_it_is_read(archive):
    scene = spheres(5, 4)
    floats = views(archive(), test_fraction=0.2, val_fraction=0.25)
    assert floats.sizes == {"train": 48, "val": 16, "test": 16} and floats.scale > 1
    bytes_ = (scene["images"] * 255).round().astype(np.uint8)
    levels = views(archive(images=bytes_), test_fraction=0.2, val_fraction=0.25)
    assert (next(levels.batches("test", 99)).target - next(floats.batches("test", 99)).target).abs().max() < 0.003
    views(
        archive(poses=scene["poses"][:, :3].astype(np.float64), focal=np.array([5])),
        test_fraction=0.2,
        val_fraction=0.25,
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": None}, r"v\.npz lacks images; it holds focal, poses"),
        ({"focal": np.array([None])}, r"v\.npz holds arrays of Python objects; only plain numbers are read"),
        (
            {"images": np.zeros((5, 4, 4, 4), np.float32)},
            r"images is float32 with shape \(5, 4, 4, 4\).*a background first",
        ),
        ({"images": np.zeros((5, 4, 4), np.float32)}, r"images is float32 with shape \(5, 4, 4\); levels from 0 to 1"),
        ({"images": np.zeros((5, 4, 4, 3), np.int64)}, "images is int64"),
        ({"images": np.full((5, 4, 4, 3), np.nan)}, "images holds 240 of 240 values that are NaN or infinite"),
        ({"images": np.full((5, 4, 4, 3), 7.0)}, "images runs from 7 to 7; levels from 0 to 1, or uint8, are expected"),
        ({"images": np.full((5, 4, 4, 3), 0.5)}, "every pixel is of one colour, so there is nothing to learn"),
        ({"images": np.zeros((5, 0, 4, 3))}, "which is empty"),
        ({"poses": np.zeros((5, 3, 3))}, r"poses is float64 with shape \(5, 3, 3\); camera-to-world matrices"),
        ({"poses": np.stack([np.eye(4)] * 4)}, "there are 5 images and 4 poses"),
        ({"poses": np.full((5, 4, 4), np.inf)}, "poses holds 80 of 80 values that are NaN or infinite"),
        ({"poses": np.stack([np.eye(4)] * 4 + [2 * np.eye(4)])}, r"poses\[4\] is no camera-to-world matrix"),
        ({"focal": np.array(-3.0)}, "focal is -3; a length in pixels"),
        ({"focal": np.ones(2)}, r"focal is float64 with shape \(2,\); one number"),
        ({"focal": np.array("x")}, "focal is <U1"),
    ],
)
def test_files_that_cannot_be_learned_from_are_told(archive, changed, message):
    with pytest.raises(UserError, match=message):
        views(archive(**changed), test_fraction=0.2, val_fraction=0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "no.npz"}, r"no\.npz does not exist"),
        ({"near": 6.0}, r"near is 6\.0 and far 6\.0; they must be distances from the camera, near < far"),
        ({"samples": 0}, "samples is 0; it must lie between 1 and 1024"),
        ({"octaves": 13}, "octaves is 13; it must lie between 0 and 12"),
        ({"views": 2}, "views is 2; it must lie between 3 and 1024"),
        ({"size": 1}, "size is 1"),
        ({"path": "x.npz", "size": 8}, "views and size are of the spheres that are rendered without a path"),
        ({"background": 2.0}, r"background is a level from 0 to 1, not 2\.0"),
        ({"views": 4}, r"test_fraction=0\.1 holds out 0 of 4"),
        ({"octaves": 2.5}, r"octaves must be a whole number, not 2\.5"),
    ],
)
def test_options_that_cannot_be_met_are_told(options, message):
    with pytest.raises(UserError, match=message):
        views(**options)


def test_held_out_views_are_drawn_above_what_the_net_renders(tmp_path):
    data = views(**SMALL)
    # Opaque first points of the right colour: a net that knows the answer.
    colour = dict(zip(map(tuple, next(data.batches("test", 36)).x[:, 0].tolist()), data._y["test"], strict=True))

    def knowing(x):
        of = torch.stack([colour[tuple(row)] for row in x[:, 0].tolist()])[:, None].expand(-1, x.shape[1], -1)
        return torch.cat([of.clamp(1e-6, 1 - 1e-6).logit(), torch.full((*x.shape[:2], 1), 1e3)], -1)

    (told,) = data.illustrate(knowing, tmp_path)
    assert told.startswith("1 held-out views above their rendering, ") and told.endswith("views.png")
    with Image.open(tmp_path / "views.png") as picture:
        drawn = np.asarray(picture)
    scale, line = 13, 18 + 8 + 6 * 13  # of 6 pixels to nearly 80; a caption, a margin and an image: `above_each_other`
    levels = (data._y["test"].view(6, 6, 3).numpy() * 255).round().astype(int)
    for top in (4 + 18, 4 + 18 + line):
        shown = drawn[top : top + 6 * scale : scale, 8 : 8 + 6 * scale : scale].astype(int)
        assert np.abs(shown - levels).max() <= 1
    error = float((1 - data._y["test"]).square().mean())
    white = lambda x: torch.full((*x.shape[:2], 4), 1e3)  # noqa: E731
    assert f"{-10 * math.log10(error):.1f} dB" in data.illustrate(white, tmp_path)[0]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Backprop, DirectFeedbackAlignment])
def test_a_short_training_beats_the_mean_colour_on_views_that_were_held_out(rule):
    torch.manual_seed(0)
    data = views(views=20, size=16, samples=24)
    assert isinstance(data.task, ViewSynthesis)
    net = MLP(data.input_shape, 4, widths=(32, 32), reads="positions").for_task(data.task)
    record = rule(net).fit(data, epochs=10, batch_size=128, optim=lambda p: torch.optim.Adam(p, lr=0.003))
    mean = data._y["train"].mean(0)
    constant = -10 * math.log10(float((data._y["test"] - mean).square().mean()))
    assert record.metric("psnr") > constant + 1
