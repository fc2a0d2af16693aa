import email.message
import io
import os
import socket
import sys
import urllib.error
import urllib.request
import urllib.response
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.datasets

from localearn.data.sources import load
from localearn.data.vision import VISION
from localearn.errors import UserError

COLOUR = {"svhn", "cifar10", "cifar100", "stl10"}
CHANNELS_FIRST = {"svhn", "stl10"}
ARRAYS = [name for name in VISION if name != "imagenette"]  # which comes as images of different sizes


def published(name, part):
    """Thirty images of three classes, as torchvision holds them after reading."""
    rows = 30 if part == "train" else 12
    shape = (rows, 3, 6, 6) if name in CHANNELS_FIRST else (rows, 6, 6, 3) if name in COLOUR else (rows, 6, 6)
    images = np.random.RandomState(rows).randint(256, size=shape).astype(np.uint8)
    return images, [i % 3 for i in range(rows)]


class Torchvision:
    """Stands for a class of torchvision.datasets: it downloads where asked to, or fails as it is told."""

    name = "mnist"
    failure: Exception | None = None
    url = "https://published.example/set.gz"
    split_list = {"train": [url], "test": [url]}  # noqa: RUF012
    made = staticmethod(published)
    timeouts: list = []  # noqa: RUF012
    calls: list = []  # noqa: RUF012

    def __init__(self, root, *, download, train=None, split=None):
        part = split or ("train" if train else "test")
        self.calls.append((part, download))
        marker = Path(root, f"raw-{part}")
        if download:
            print("Downloading")
            print(" 99%|####", file=sys.stderr)
            self.timeouts.append(socket.getdefaulttimeout())
            Path(root, "half").write_bytes(b"half")
            if self.failure:
                raise self.failure
            marker.touch()
        if not marker.exists():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        images, labels = self.made(self.name, part)
        self.data = torch.from_numpy(images) if self.name in ("mnist", "fashion_mnist", "kmnist") else images
        if self.name in CHANNELS_FIRST:
            self.labels = np.array(labels)
        else:
            self.targets = torch.tensor(labels) if self.name == "mnist" else labels


@pytest.fixture
def fake(monkeypatch):
    def install(name, failure=None, made=published):
        own = {"name": name, "failure": failure, "timeouts": [], "calls": [], "made": staticmethod(made)}
        stand_in = type("StandIn", (Torchvision,), own)
        monkeypatch.setattr(torchvision.datasets, VISION[name][0], stand_in)
        return stand_in

    return install


@pytest.mark.parametrize("name", ARRAYS)
def test_a_set_is_downloaded_once_and_then_read_from_its_archive(name, fake, tmp_path, capsys, caplog):
    stand_in = fake(name)
    data = load(name, data_dir=tmp_path / "new", normalize="none")
    assert stand_in.calls == [("train", False), ("train", True), ("test", True)]
    assert os.listdir(tmp_path / "new") == [f"{name}.npz"]
    assert capsys.readouterr() == ("", "")
    told = f"{name}: it is not in {tmp_path / 'new'}, and is downloaded from published.example, by torchvision"
    assert [record.getMessage() for record in caplog.records if "downloaded" in record.getMessage()] == [told]

    images, labels = published(name, "test")
    images = images if name in CHANNELS_FIRST else images.transpose(0, 3, 1, 2) if name in COLOUR else images[:, None]
    (batch,) = data.batches("test", 12)
    assert torch.equal(batch.x, torch.from_numpy(images).float()) and batch.y.tolist() == labels
    assert data.classes == 3 and data.sizes == {"train": 27, "val": 3, "test": 12}

    again = load(name, data_dir=tmp_path / "new", normalize="none")
    assert len(stand_in.calls) == 3 and again.fingerprint() == data.fingerprint()


class Imagenette(Torchvision):
    """Stands for torchvision's: images of different sizes, by number, whose second part is called val."""

    _ARCHIVES = {"160px": ("https://published.example/imagenette2-160.tgz", "")}  # noqa: RUF012

    def __init__(self, root, *, split, size, download):
        assert size == "160px"
        super().__init__(root, split=split, download=download)
        if download:  # one archive with both parts
            Path(root, "raw-val").touch()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, number):
        grey = number % 2 == 0
        pixels = np.full((200, 160 + number) if grey else (160 + number, 200, 3), 8 * number, np.uint8)
        return PIL.Image.fromarray(pixels), self.targets[number]


def test_images_of_different_sizes_are_scaled_and_cropped_and_their_classes_have_names(monkeypatch, tmp_path):
    stand_in = type("StandIn", (Imagenette,), {"name": "imagenette", "calls": [], "timeouts": []})
    monkeypatch.setattr(torchvision.datasets, "Imagenette", stand_in)
    data = load("imagenette", data_dir=tmp_path, normalize="none")
    assert stand_in.calls == [("train", False), ("train", True), ("val", False)]
    assert data.input_shape == (3, 128, 128) and data.sizes == {"train": 27, "val": 3, "test": 12}
    (batch,) = data.batches("test", 12)
    assert batch.x[:, :, 64, 64].tolist() == [[8.0 * n] * 3 for n in range(12)]
    assert batch.target.tolist() == [n % 3 for n in range(12)]
    assert data.class_names is not None and data.class_names[:2] == ("tench", "English springer")
    assert os.listdir(tmp_path) == ["imagenette.npz"]
    assert load("imagenette", data_dir=tmp_path, normalize="none").fingerprint() == data.fingerprint()


def test_the_archive_holds_uint8(fake, tmp_path):
    fake("cifar10")
    load("cifar10", data_dir=tmp_path)
    with np.load(tmp_path / "cifar10.npz") as archive:
        assert {name: (archive[name].dtype, archive[name].shape) for name in archive} == {
            "x_train": (np.uint8, (30, 6, 6, 3)),
            "y_train": (np.uint8, (30,)),
            "x_test": (np.uint8, (12, 6, 6, 3)),
            "y_test": (np.uint8, (12,)),
        }


def test_what_torchvision_left_in_data_dir_is_used(fake, tmp_path):
    stand_in = fake("mnist")
    for part in ("train", "test"):
        (tmp_path / f"raw-{part}").touch()
    load("mnist", data_dir=tmp_path)
    assert stand_in.calls == [("train", False), ("test", False)]
    assert (tmp_path / "mnist.npz").exists()


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        RuntimeError("Error downloading t:\nTried a, got:\nno route to host\n"),
        TimeoutError("no route to host"),
        EOFError("no route to host"),
    ],
)
def test_a_failed_download_says_what_was_looked_for_and_leaves_nothing(failure, fake, tmp_path):
    stand_in = fake("mnist", failure)
    with pytest.raises(UserError) as caught:
        load("mnist", data_dir=tmp_path)
    message = str(caught.value)
    assert message.count("\n") == 1 and "no route to host" in message and "Tried" not in message
    assert f"{tmp_path}/mnist.npz and {tmp_path}/MNIST/raw" in message
    assert "LOCALEARN_DATA" in message and "copy" in message
    assert os.listdir(tmp_path) == []
    stand_in.failure = None
    assert load("mnist", data_dir=tmp_path).sizes["test"] == 12


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mnist", "ossci-datasets.s3.amazonaws.com or "),
        ("fashion_mnist", "fashion-mnist"),
        ("kmnist", "codh.rois.ac.jp"),
        ("svhn", "ufldl.stanford.edu, by torchvision"),
        ("cifar10", "www.cs.toronto.edu, by torchvision"),
        ("cifar100", "www.cs.toronto.edu, by torchvision"),
        ("stl10", "ai.stanford.edu, by torchvision"),
        ("imagenette", "s3.amazonaws.com, by torchvision"),
    ],
)
@pytest.mark.parametrize("answer", [urllib.error.URLError("no route to host"), b"<html>moved</html>"])
def test_where_torchvision_itself_fails_one_line_says_what_is_downloaded_from_whom(
    name, source, answer, tmp_path, network, caplog, capfd
):
    def opened(request):
        if isinstance(answer, Exception):
            raise answer
        found = urllib.response.addinfourl(io.BytesIO(answer), email.message.Message(), "http://published.example", 200)
        found.__dict__["length"] = len(answer)
        return found

    network(opened)
    with pytest.raises(UserError) as caught:
        load(name, data_dir=tmp_path)
    first, second = caught.value.args
    assert f"{name} is not here and could not be downloaded from {source}" in first
    assert ("no route to host" if isinstance(answer, Exception) else "File not found or corrupted") in first
    assert f"{name}.npz" in second and "LOCALEARN_DATA" in second
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name}: it is not in {tmp_path}, and is downloaded from {source}")
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


def test_a_failed_download_leaves_no_folder_that_it_made(fake, tmp_path):
    fake("mnist", OSError("no route to host"))
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="no route to host"):
        load("mnist", data_dir=tmp_path / "mine" / "new" / "folder")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_connection_has_a_time_limit_during_a_download_alone(fake, tmp_path):
    stand_in = fake("mnist")
    before = socket.getdefaulttimeout()
    load("mnist", data_dir=tmp_path)
    assert stand_in.timeouts == [15.0, 15.0]
    assert socket.getdefaulttimeout() == before


def test_what_was_downloaded_is_checked_before_it_is_kept(fake, tmp_path):
    fake("mnist", made=lambda name, part: (np.zeros((4, 6, 6), np.uint8), [0, 0, 0, 0]))
    with pytest.raises(UserError, match="mnist: the training labels are all 0"):
        load("mnist", data_dir=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_damaged_archive_is_named_and_not_replaced(fake, tmp_path):
    stand_in = fake("mnist")
    (tmp_path / "mnist.npz").write_bytes(b"PK half")
    with pytest.raises(UserError, match=r"mnist\.npz cannot be read as an npz archive"):
        load("mnist", data_dir=tmp_path)
    assert stand_in.calls == []


def test_a_data_dir_that_cannot_be_made_is_named(fake, tmp_path):
    fake("mnist")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"looked for {tmp_path}/file/mnist.npz"):
        load("mnist", data_dir=tmp_path / "file")
