"""A user's own pictures: a folder for each class."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from localearn.data.splits import held_size, hold_out
from localearn.errors import UserError

_SEED = 0  # of the test split where the folder has none: the same for everyone, whatever split_seed is
_GREY = ("1", "L")
_DEEP = ("I", "F")  # Pillow's modes, or their beginnings, of more than 8 bits a channel


def image_folder(path: Path, image_size: int | None, test_fraction: float) -> dict[str, np.ndarray]:
    """Return the four arrays of <path>/train/<class>/* and <path>/test/<class>/*, images as uint8.

    (N, H, W) where every image is grey, else (N, H, W, 3). Classes are numbered by their folders' names in order.
    Without a test folder a stratified `test_fraction` of the images is held out, always the same. With `image_size`
    each image is scaled and centrally cropped to a square of that many pixels; without it all must be of one size.
    Raises UserError, naming the folder or the file, for what is missing, empty, broken or of another size.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder" if path.exists() else f"{path} does not exist")
    if not (path / "train").is_dir():
        raise UserError(f"{path} has no folder train; images are expected in {path / 'train'}/<class>/")
    files, labels, classes = _find(path / "train")
    train = len(files)
    if (path / "test").is_dir():
        more, more_labels, more_classes = _find(path / "test")
        unknown = [name for name in more_classes if name not in classes]
        if unknown:
            raise UserError(f"{path / 'test'} has the class {unknown[0]!r}, which {path / 'train'} has not")
        files += more
        labels += [classes.index(more_classes[label]) for label in more_labels]
    images, y = _pictures(files, image_size), np.array(labels)
    if len(files) > train:
        rest, held = np.arange(train), np.arange(train, len(files))
    else:
        rest, held = hold_out(y, held_size("test", train, test_fraction), _SEED)
    return {"x_train": images[rest], "y_train": y[rest], "x_test": images[held], "y_test": y[held]}


def _find(folder: Path) -> tuple[list[Path], list[int], list[str]]:
    """Return the files, their labels and the classes' names, as torchvision finds them."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:  # no class at all, or a class without an image
        raise UserError(f"{folder}: {' '.join(str(error).split())}") from error
    return [Path(file) for file, _ in found.samples], list(found.targets), list(found.classes)


def _pictures(files: Sequence[Path], image_size: int | None) -> np.ndarray:
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        pictures = list(pool.map(lambda file: _picture(file, image_size), files))
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            (height, width), (first_height, first_width) = picture.shape[:2], pictures[0].shape[:2]
            raise UserError(
                f"{file} is {width}x{height} and {files[0]} is {first_width}x{first_height}; "
                f"give image_size to bring all images to one size"
            )
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    return np.stack(pictures)


def _picture(file: Path, image_size: int | None) -> np.ndarray:
    """Return one image, uint8, (H, W) where it is grey and (H, W, 3) otherwise."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            if image.mode.startswith(_DEEP):
                raise UserError(f"{file} has more than 8 bits a channel; convert it to 8 bits")
            picture = image.convert("L" if image.mode in _GREY else "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is no image that can be read; it is cut short, damaged or another file") from error
    if image_size is not None:
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
