"""An image as (x, y) to colour: what is encoded, what is held out, what is drawn, what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from localearn.data import coordinates, load, photo
from localearn.data.base import Split
from localearn.data.coordinates import centres, positional_encoding
from localearn.errors import UserError
from localearn.tasks import Regression

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def pixels(height=12, width=20, channels=3):
    random = np.random.RandomState(0)
    return random.randint(0, 256, (height, width, channels)[: 3 if channels > 1 else 2]).astype(np.uint8)


@pytest.fixture
def image(tmp_path):
    def save(values, name="p.png", mode=None):
        made = Image.fromarray(values)
        (made.convert(mode) if mode else made).save(tmp_path / name)
        return tmp_path / name

    return save


def test_a_photograph_stands_upright(image, tmp_path):
    values, exif = pixels(), Image.Exif()
    exif[0x112] = 6  # the camera was held a quarter of a turn to the left
    Image.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(coordinates(tmp_path / "turned.png").pixels, np.rot90(values, -1))
    np.testing.assert_array_equal(coordinates(image(values)).pixels, values)


def colours(data):
    """Return every pixel's colour by where it is."""
    found = {}
    for split in SPLITS:
        (batch,) = data.batches(split, 10**6)
        levels = data.task.decode(batch.target).round().int().tolist()
        for x, y, colour in zip(*batch.x[:, :2].T.tolist(), levels, strict=True):
            found[round((x + 1) / 2 * 20 - 0.5), round((y + 1) / 2 * 12 - 0.5)] = (split, colour)
    return found


def test_each_pixel_is_in_one_split_with_its_own_colour(image):
    values = pixels()
    data = coordinates(image(values), size=None)
    assert isinstance(data.task, Regression) and (data.task.outputs, data.task.peak) == (3, 255.0)
    assert data.sizes == {"train": 194, "val": 22, "test": 24} and data.input_shape == (2 + 4 * 6,)
    found = colours(data)
    assert len(found) == 240
    assert all(colour == values[y, x].tolist() for (x, y), (_, colour) in found.items())
    test = {place for place, (split, _) in found.items() if split == "test"}
    again = colours(coordinates(image(values), size=None, split_seed=7))
    assert test == {place for place, (split, _) in again.items() if split == "test"}
    assert {place for place, (split, _) in again.items() if split == "val"} != {
        place for place, (split, _) in found.items() if split == "val"
    }
    (train,) = data.batches("train", 10**6)
    torch.testing.assert_close(train.target.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.target.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_the_encoding_is_the_equation_of_its_paper():
    points = torch.tensor([[0.25, -0.5], [-1.0, 1.0]])
    rows = positional_encoding(points, 2).double().numpy()
    for (x, y), row in zip(points.tolist(), rows, strict=True):
        expected = [x, y]
        for k in range(2):
            angles = [2**k * math.pi * x, 2**k * math.pi * y]
            expected += [*map(math.sin, angles), *map(math.cos, angles)]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert positional_encoding(points, 0).tolist() == points.tolist()
    assert centres(2, 4).tolist() == [[x, y] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)]


@pytest.mark.parametrize(("mode", "outputs"), [("RGB", 3), ("L", 1), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("1", 1)])
def test_images_of_every_mode_are_taken(image, mode, outputs):
    data = coordinates(image(pixels(), "p.tiff", mode), octaves=1)
    assert data.task.outputs == outputs and data.target_names == (
        ("red", "green", "blue") if outputs == 3 else ("grey",)
    )


def test_sixteen_bits_keep_their_levels(image):
    deep = np.random.RandomState(0).randint(0, 65536, (8, 8)).astype(np.uint16)
    data = coordinates(image(deep, "p.png"))
    assert isinstance(data.task, Regression) and data.task.peak == 65535


def test_a_large_image_is_scaled_down_and_a_small_one_stays(image):
    assert coordinates(image(pixels(120, 60)), size=30).pixels.shape == (30, 15, 3)
    assert coordinates(image(pixels(12, 20)), size=30).pixels.shape == (12, 20, 3)


def test_the_photographs_are_embedded_and_equal_from_every_way():
    china = photo(size=24)
    assert china.name == "photo" and china.pixels.shape == (16, 24, 3)
    assert load("photo", size=24).fingerprint() == china.fingerprint() != photo("flower", size=24).fingerprint()
    assert photo(size=24, octaves=2).fingerprint() != china.fingerprint() != photo(size=24, split_seed=1).fingerprint()


@pytest.mark.parametrize("channels", [3, 1])
def test_the_image_is_drawn_beside_what_the_net_makes_of_every_pixel(image, tmp_path, channels):
    values = pixels(channels=channels)
    data = coordinates(image(values), size=None)
    assert isinstance(data.task, Regression)
    truth = torch.from_numpy(values.reshape(240, -1).astype(np.float64))
    task = data.task
    rows = {
        tuple(row): truth[place]
        for place, row in enumerate(positional_encoding(centres(12, 20).double(), 6).float().tolist())
    }

    def perfect(x):
        levels = torch.stack([rows[tuple(row)] for row in x.tolist()])
        return (levels - torch.tensor(task.center)) / torch.tensor(task.scale)

    (told,) = data.illustrate(perfect, tmp_path)
    assert told.endswith("reconstruction.png") and " dB over all of its pixels" in told
    with Image.open(tmp_path / "reconstruction.png") as picture:
        drawn = np.asarray(picture)
    scale = 16  # 20 pixels to at least 320
    true = drawn[26 : 26 + 12 * scale : scale, 8 : 8 + 20 * scale : scale]
    made = drawn[26 : 26 + 12 * scale : scale, 8 + 20 * scale + 8 :: scale][:, :20]
    assert np.array_equal(true, values if channels == 3 else np.repeat(values[..., None], 3, 2))
    assert np.array_equal(made, true)
    (told,) = data.illustrate(lambda x: torch.zeros(len(x), task.outputs), tmp_path)
    error = ((truth.numpy() - np.array(task.center)) ** 2).mean()
    assert f"{10 * math.log10(255**2 / error):.1f} dB" in told


def test_a_run_draws_it_and_tells_the_ratio(door, tmp_path):
    ended = door("dataset=photo", "dataset.size=16", "dataset.octaves=2", "net.widths=[8]", "epochs=1",
                 "progress=false", "energy.enabled=false", "out=run")  # fmt: skip
    assert ended.status == 0, ended.err
    assert "test psnr " in ended.out and (tmp_path / "run" / "reconstruction.png").is_file()
    assert ended.out.splitlines()[-1].endswith("run/reconstruction.png")


def test_greedy_phases_map_it_to_features_that_are_plain_rows(image):
    data = coordinates(image(pixels()), octaves=1)
    mapped = data.features("h", lambda x: x[:, :2], 64)
    assert mapped.input_shape == (2,) and type(mapped).__name__ == "ArrayData"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "coordinates needs a path; give path=picture.png, or use dataset=photo"),
        ({"path": "no.png"}, r"no\.png does not exist"),
        ({"path": "."}, r"\. is no file"),
        ({"size": 1}, "size is 1; it must be at least 2 pixels"),
        ({"octaves": 25}, "octaves is 25; it must lie between 0 and 24"),
        ({"octaves": -1}, "octaves is -1"),
        ({"octaves": 2.5}, "octaves must be a whole number, not 2.5"),
        ({"path": "x" * 5000}, "cannot be read: File name too long"),
        ({"criterion": "hubert"}, r"criterion must be squared, absolute or huber, not 'hubert'; did you mean 'huber'"),
        ({"train_size": 500}, "train_size is 500; it must lie between 1 and 194"),
        ({"test_fraction": 1.5}, "test_fraction is 1.5"),
    ],
)
def test_options_that_cannot_be_met_are_told(image, options, message):
    with pytest.raises(UserError, match=message):
        coordinates(**{"path": image(pixels()), **options})


def test_files_that_are_no_image_or_of_one_colour_are_told(image, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"x\.png is no image that can be read"):
        coordinates(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"p\.png is of one colour, so there is nothing to predict"):
        coordinates(image(np.full((9, 9, 3), 7, np.uint8)))
    with pytest.raises(UserError, match="image must be china or flower, not 'chian'; did you mean 'china'"):
        photo("chian")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"test_fraction=0\.1 holds out 0 of 4 training rows"):
        coordinates(image(pixels(2, 2)))
