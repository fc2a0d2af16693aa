import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from localearn.data.imagefolder import image_folder
from localearn.data.sources import load
from localearn.errors import UserError
from tests.marks import posix


def picture(value, size=(6, 5), mode="RGB"):
    """A plain image, width x height, whose level tells which one it is."""
    return Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * 3)


def folder(root, *, per_class=10, test=3, mode="RGB"):
    """Two classes; the training images have levels 0.., those of the test 200..."""
    for part, count, first in (("train", per_class, 0), ("test", test, 200)):
        for label, name in enumerate(("apple", "pear")):
            if count:
                (root / part / name).mkdir(parents=True)
            for i in range(count):
                picture(first + 2 * i + label, mode=mode).save(root / part / name / f"{i:02}.png")
    return root


def values(data, split):
    (batch,) = data.batches(split, 1000)
    return batch.x[:, 0, 0, 0].tolist(), batch.y.tolist()


def test_images_and_their_classes_are_found(tmp_path):
    data = load("imagefolder", path=folder(tmp_path), normalize="none", val_size=4)
    assert (data.kind, data.classes, data.input_shape) == ("image", 2, (3, 5, 6))
    assert data.sizes == {"train": 16, "val": 4, "test": 6}
    assert values(data, "test") == ([200, 202, 204, 201, 203, 205], [0, 0, 0, 1, 1, 1])
    levels, labels = values(data, "train")
    assert [level % 2 for level in levels] == labels


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path):
    grey = folder(tmp_path / "grey", mode="L")
    assert load("imagefolder", path=grey).input_shape == (1, 5, 6)
    Image.new("RGB", (6, 5), (10, 20, 30)).save(grey / "test" / "pear" / "99.png")
    data = load("imagefolder", path=grey, normalize="none")
    assert data.input_shape == (3, 5, 6)
    (batch,) = data.batches("test", 100)
    assert batch.x[-1, :, 0, 0].tolist() == [10, 20, 30]
    assert torch.equal(batch.x[0, 0], batch.x[0, 2])


def test_without_a_test_folder_a_fixed_stratified_part_is_held_out(tmp_path):
    path = folder(tmp_path, test=0)
    data = load("imagefolder", path=path, normalize="none", test_fraction=0.3)
    levels, labels = values(data, "test")
    assert data.sizes["test"] == 6 and labels.count(0) == 3
    other = load("imagefolder", path=path, normalize="none", test_fraction=0.3, split_seed=9)
    assert values(other, "test") == (levels, labels)
    everything = [*levels, *values(data, "train")[0], *values(data, "val")[0]]
    assert sorted(everything) == list(range(20))


def test_a_test_folder_may_lack_classes_but_has_no_others(tmp_path):
    path = folder(tmp_path, test=0)
    (path / "test" / "pear").mkdir(parents=True)
    picture(255).save(path / "test" / "pear" / "a.png")
    assert values(load("imagefolder", path=path, normalize="none"), "test") == ([255], [1])
    (path / "test" / "quince").mkdir()
    picture(255).save(path / "test" / "quince" / "a.png")
    with pytest.raises(UserError, match=r"test has the class 'quince', which .*train has not"):
        load("imagefolder", path=path)


def test_images_of_different_sizes_need_image_size(tmp_path):
    path = folder(tmp_path)
    picture(7, size=(9, 12)).save(path / "train" / "pear" / "big.png")
    with pytest.raises(UserError, match=r"big\.png is 9x12 and .*00\.png is 6x5; give image_size"):
        load("imagefolder", path=path)
    data = load("imagefolder", path=path, image_size=4, normalize="none")
    assert data.input_shape == (3, 4, 4)


def test_image_size_scales_and_crops_the_middle(tmp_path):
    path = folder(tmp_path)
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 90
    Image.fromarray(wide).save(path / "test" / "apple" / "00.png")
    (batch,) = load("imagefolder", path=path, image_size=4, normalize="none").batches("test", 100)
    assert (batch.x[0] == 90).all()


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("content", ["half", "text", "empty"])
def test_a_broken_file_is_named(tmp_path, part, content):
    path = folder(tmp_path)
    file = path / part / "pear" / "01.png"
    Image.fromarray(np.random.RandomState(0).randint(256, size=(5, 6, 3)).astype(np.uint8)).save(file)
    whole = file.read_bytes()
    file.write_bytes({"half": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[content])
    with pytest.raises(UserError, match=rf"{file} is no image that can be read") as caught:
        load("imagefolder", path=path)
    assert "\n" not in str(caught.value)


def deep(root, suffix="png"):
    """Four grey images of 16 bits, of levels that 8 bits cannot tell apart."""
    for i, name in enumerate(("apple", "pear", "apple", "pear")):
        (root / name).mkdir(parents=True, exist_ok=True)
        picture(40000 + i, mode="I;16").save(root / name / f"{i}.{suffix}")
    return root


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_16_bits_are_taken_at_full_depth(tmp_path, suffix):
    path = deep(tmp_path, suffix)
    data = load("imagefolder", path=path, normalize="none", test_fraction=0.3, val_size=1)
    assert sorted(level for split in data.sizes for level in values(data, split)[0]) == [40000, 40001, 40002, 40003]
    unit = load("imagefolder", path=path, normalize="unit", test_fraction=0.3, val_size=1)
    assert values(unit, "test")[0] == pytest.approx([level / 65535 for level in values(data, "test")[0]])
    small = load("imagefolder", path=path, normalize="none", test_fraction=0.3, val_size=1, image_size=3)
    assert small.input_shape == (1, 3, 3) and values(small, "train") == values(data, "train")


def test_mixed_depths_and_deeper_images_are_named_rather_than_clipped(tmp_path):
    path = deep(tmp_path / "mixed")
    picture(7, mode="L").save(path / "pear" / "9.png")
    with pytest.raises(UserError, match=r"9\.png has 8 bits a channel and .*0\.png has 16; convert all to one depth"):
        load("imagefolder", path=path)
    path = deep(tmp_path / "deeper")
    Image.new("F", (6, 5), 0.5).save(path / "pear" / "9.tif")
    with pytest.raises(UserError, match=r"9\.tif has more than 16 bits a channel"):
        load("imagefolder", path=path)
    Image.new("I", (6, 5), 70000).save(path / "pear" / "9.tif")
    with pytest.raises(UserError, match=r"9\.tif has more than 16 bits a channel"):
        load("imagefolder", path=path)


def png_of_16_bits(values):
    """Return a PNG, which Pillow reads and cannot write, of (H, W, C) uint16: 2 channels are grey and alpha."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_images_of_16_bits_that_are_not_grey_alone_are_read_as_8_within_a_level(tmp_path, channels):
    levels = np.random.RandomState(0).randint(2**16, size=(4, 5, 6, channels)).astype(np.uint16)
    levels[0, 0, 0], levels[0, 0, 1], levels[0, 0, 2] = 0, 2**16 - 1, 255
    for i, name in enumerate(("apple", "pear", "apple", "pear")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{i}.png").write_bytes(png_of_16_bits(levels[i]))
    arrays, _, _ = image_folder(tmp_path, None)
    found = arrays["x_train"]
    assert (found.dtype, found.shape) == (np.uint8, (4, 5, 6, 3))
    expected = levels[[0, 2, 1, 3], ..., : 1 if channels == 2 else 3]  # the classes in order; alpha is dropped
    assert np.abs(found - expected / 257).max() < 1  # 65535 = 257 * 255
    assert (found == expected >> 8).all()


def test_folders_that_cannot_serve_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        load("imagefolder", path=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        load("imagefolder", path=tmp_path / "file")
    with pytest.raises(UserError, match=r"has no folder train; images are expected in .*train/<class>/"):
        load("imagefolder", path=tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="any class folder"):
        load("imagefolder", path=tmp_path)


def test_an_empty_class_is_named(tmp_path):
    path = folder(tmp_path)
    (path / "train" / "quince").mkdir()
    with pytest.raises(UserError, match="quince") as caught:
        load("imagefolder", path=path)
    assert "\n" not in str(caught.value)


def test_a_single_class_is_not_enough(tmp_path):
    (tmp_path / "train" / "apple").mkdir(parents=True)
    for i in range(5):
        picture(i).save(tmp_path / "train" / "apple" / f"{i}.png")
    with pytest.raises(UserError, match="at least 2 classes"):
        load("imagefolder", path=tmp_path)


def test_a_flat_folder_of_classes_is_taken_and_its_test_part_drawn(tmp_path):
    path = folder(tmp_path, test=0) / "train"
    flat = load("imagefolder", path=path, normalize="none", test_fraction=0.3)
    assert flat.sizes["test"] == 6
    assert flat.class_names == ("apple", "pear")
    assert flat.notes == ("no test part was given: 6 of 20 rows were drawn (test_fraction=0.3)",)
    assert values(flat, "test") == values(
        load("imagefolder", path=tmp_path, normalize="none", test_fraction=0.3), "test"
    )


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_validation_split(tmp_path, name):
    path = folder(tmp_path, test=2)
    (path / "test").rename(path / name)
    data = load("imagefolder", path=path, normalize="none", test_fraction=0.2)
    assert data.sizes == {"train": 16, "val": 4, "test": 4}
    assert values(data, "val") == ([200, 202, 201, 203], [0, 0, 1, 1])
    with pytest.raises(UserError, match="validation part of its own: val_size does not apply"):
        load("imagefolder", path=path, val_size=3)
    (path / ("valid" if name == "val" else "val")).mkdir()
    with pytest.raises(UserError, match="only one can be the validation part"):
        load("imagefolder", path=path)


def test_what_systems_leave_behind_is_left_out_and_counted_in_a_line(tmp_path, caplog):
    clean = load("imagefolder", path=folder(tmp_path / "clean")).fingerprint()
    path = folder(tmp_path / "found")
    for place in (path, path / "train", path / "train" / "pear", path / "test"):
        for name in (".ipynb_checkpoints", "__MACOSX"):
            (place / name).mkdir()
            picture(9, size=(3, 3)).save(place / name / "x.png")
        for name in (".DS_Store", "Thumbs.db", "._x.png"):
            (place / name).write_bytes(b"no image")
    (path / "train" / "pear" / "labels.csv").touch()
    (path / "raw").mkdir()
    data = load("imagefolder", path=path)
    assert data.fingerprint() == clean
    (note,) = data.notes
    assert "20 hidden files or folders" in note and "1 other files" in note and "1 folders beside train" in note
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {note}"]


def test_each_real_file_is_taken_once_and_in_its_own_class(tmp_path, monkeypatch):
    clean = load("imagefolder", path=folder(tmp_path / "clean")).fingerprint()
    path = folder(tmp_path / "linked")
    apple = path / "train" / "apple"
    (apple / "itself").symlink_to(apple)
    (apple / "parent").symlink_to(path / "train")
    (apple / "all").symlink_to(tmp_path)
    (apple / "pears").symlink_to(path / "train" / "pear")
    (apple / "again.png").symlink_to(path / "train" / "pear" / "00.png")
    (path / "test" / "apple" / "00a.png").symlink_to(apple / "00.png")
    data = load("imagefolder", path=path)
    assert data.fingerprint() == clean
    assert data.notes == ("left out: 6 links to what is taken elsewhere",)
    monkeypatch.chdir(path.parent)
    assert load("imagefolder", path="linked").fingerprint() == clean


def test_links_to_a_store_beside_the_folder_are_followed(tmp_path):
    clean = load("imagefolder", path=folder(tmp_path / "store")).fingerprint()
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(parents=True)
        (tmp_path / "set" / part / "apple").symlink_to(tmp_path / "store" / part / "apple")
        (tmp_path / "set" / part / "pear").mkdir()
        for file in (tmp_path / "store" / part / "pear").iterdir():
            (tmp_path / "set" / part / "pear" / file.name).symlink_to(file)
    assert load("imagefolder", path=tmp_path / "set").fingerprint() == clean


@posix
def test_what_is_no_regular_file_is_named(tmp_path):
    path = folder(tmp_path)
    os.mkfifo(path / "train" / "pear" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is no image that can be read; .*no regular file"):
        load("imagefolder", path=path)
    (path / "train" / "pear" / "pipe.png").unlink()
    (path / "train" / "pear" / "gone.png").symlink_to(path / "nothing.png")
    with pytest.raises(UserError, match=r"gone\.png .* a link to nothing"):
        load("imagefolder", path=path)


def test_an_image_too_large_to_unpack_is_told_as_one(tmp_path):
    """Some bytes whose header tells of 20,000 x 30,000 pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    path = folder(tmp_path)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 30_000, 1, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (path / "train" / "pear" / "bomb.png").write_bytes(content)
    told = r"bomb\.png has 600,000,000 pixels, and images of more than 178,956,970 are not read"
    with pytest.raises(UserError, match=told):
        load("imagefolder", path=path)


def tiny_imagenet(root):
    """Its own layout: classes of images in train, those of val named in a file, and test without labels."""
    for label, name in enumerate(("n01", "n02")):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t3\t3\n")
        for i in range(10):
            picture(2 * i + label).save(root / "train" / name / "images" / f"{name}_{i}.JPEG", quality=100)
    (root / "val" / "images").mkdir(parents=True)
    (root / "test" / "images").mkdir(parents=True)
    picture(250).save(root / "test" / "images" / "test_0.JPEG")
    lines = []
    for i in range(6):
        picture(200 + i).save(root / "val" / "images" / f"val_{i}.JPEG", quality=100)
        lines.append(f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t3\t3\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n02\nn01\n")
    return root


def test_tiny_imagenet_is_taken_as_it_is_published_and_its_val_images_are_the_test_part(tmp_path):
    data = load("imagefolder", path=tiny_imagenet(tmp_path), normalize="none", val_size=4)
    assert data.class_names == ("n01", "n02") and data.sizes == {"train": 16, "val": 4, "test": 6}
    levels, labels = values(data, "test")
    assert levels == [200, 201, 202, 203, 204, 205] and labels == [0, 1] * 3
    levels, labels = values(data, "train")
    assert [level % 2 for level in levels] == labels
    assert "Tiny ImageNet's layout: its val images are the test part" in data.notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn03\t0\t0\t3\t3\n", r"val_annotations\.txt, line 1 has the class 'n03', which .*train has not"),
        ("val_9.JPEG\tn01\t0\t0\t3\t3\n", r"val_annotations\.txt, line 1 names 'val_9\.JPEG', which .*images has not"),
        ("\n", r"val_annotations\.txt names no image"),
    ],
)
def test_what_is_wrong_in_tiny_imagenets_file_is_named_with_its_line(tmp_path, line, message):
    path = tiny_imagenet(tmp_path)
    (path / "val" / "val_annotations.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        load("imagefolder", path=path)
    for name in ("n01", "n02"):
        (path / "train" / name).rename(path / name)
    with pytest.raises(UserError, match=r"is Tiny ImageNet's, and .*train/<class>/images is lacking"):
        load("imagefolder", path=path)
