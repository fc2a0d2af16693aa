"""Image sets that torchvision downloads, stored as one archive each: MNIST, SVHN, CIFAR, STL-10 and others."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from localearn.data import files
from localearn.data.checks import ARRAYS, checked_arrays
from localearn.data.downloads import FAILURES, download_folder, downloading, unavailable

# Our name: torchvision's class, and where torchvision itself would store the files.
VISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": ("KMNIST", "KMNIST/raw"),
    "svhn": ("SVHN", "train_32x32.mat"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
    "imagenette": ("Imagenette", "imagenette2-160"),
}

# The classes of those whose labels are of words, in their order.
CLASSES = {
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    "imagenette": (
        "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
        "gas pump", "golf ball", "parachute",
    ),
}  # fmt: skip

_IMAGENETTE_PIXELS = 128  # of the square that its images, whose shorter side has 160, are scaled and cropped to
_OF_SPLITS = ("SVHN", "STL10", "Imagenette")  # which take split=, the part's name, and not train=
_CHANNELS_FIRST = ("SVHN", "STL10")


def vision(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of one of `VISION`, checked.

    They are read from <data_dir>/<name>.npz, or else prepared and stored there, from what torchvision downloaded into
    data_dir before, or else from a download into a temporary folder there, of which nothing stays.

    Args:
        name: the data set.
        data_dir: the folder of prepared data sets.

    Raises:
        UserError: where the set is neither there nor can be downloaded.

    """
    prepared = data_dir / f"{name}.npz"
    if prepared.exists():
        return checked_arrays(str(prepared), files.read(prepared, ARRAYS))
    class_name, layout = VISION[name]
    try:
        arrays = _read(class_name, data_dir, download=False)
    except FAILURES:
        try:
            arrays = _downloaded(name, data_dir)
        except FAILURES as error:
            raise unavailable(name, _source(class_name), (prepared, data_dir / layout), error) from error
    checked = checked_arrays(name, arrays)
    files.store(prepared, arrays)
    return checked


def _downloaded(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    class_name, _ = VISION[name]
    with download_folder(data_dir) as folder, downloading(name, _source(class_name), data_dir):
        return _read(class_name, folder, download=True)


def _source(class_name: str) -> str:
    """Return the hosts that torchvision tries for a set, in their order."""
    import torchvision.datasets

    published = getattr(torchvision.datasets, class_name)
    urls = getattr(published, "mirrors", None) or [getattr(published, "url", None)]
    if class_name == "SVHN":
        urls = [url for url, *_ in published.split_list.values()]
    if class_name == "Imagenette":
        urls = [url for url, _ in published._ARCHIVES.values()]
    hosts = dict.fromkeys(urlsplit(url).hostname for url in urls)
    return f"{' or '.join(str(host) for host in hosts)}, by torchvision"


def _read(class_name: str, root: Path, *, download: bool) -> dict[str, np.ndarray]:
    """Return the arrays in torchvision's form, images (N, H, W) or (N, H, W, C) uint8 and labels uint8."""
    import torchvision.datasets

    arrays = {}
    published = getattr(torchvision.datasets, class_name)
    for part in ("train", "test"):
        if class_name == "Imagenette":
            # Its second part is called val, and is what is reported: the test part here.
            data = published(str(root), split="train" if part == "train" else "val", size="160px", download=download)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = _squares(data)
            download = False  # it refuses to download what is there, and both parts are one archive
            continue
        which = {"split": part} if class_name in _OF_SPLITS else {"train": part == "train"}
        data = published(str(root), download=download, **which)
        images = np.asarray(data.data)
        labels = data.labels if class_name in _OF_SPLITS else data.targets
        arrays[f"x_{part}"] = images.transpose(0, 2, 3, 1) if class_name in _CHANNELS_FIRST else images
        arrays[f"y_{part}"] = np.asarray(labels).astype(np.uint8)
    return arrays


def _squares(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images of different sizes scaled and centrally cropped, (N, H, W, 3) uint8, and their labels, uint8."""
    from PIL import Image, ImageOps

    square = (_IMAGENETTE_PIXELS, _IMAGENETTE_PIXELS)
    images = np.empty((len(data), *square, 3), dtype=np.uint8)
    labels = np.empty(len(data), dtype=np.uint8)
    for number in range(len(data)):
        image, labels[number] = data[number]
        images[number] = np.asarray(ImageOps.fit(image.convert("RGB"), square, Image.Resampling.BILINEAR))
    return images, labels
