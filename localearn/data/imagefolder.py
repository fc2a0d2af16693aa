"""Image folders of a user's own, a folder per class, and the decoding of image files."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from localearn.errors import UserError
from localearn.files import kind_of_file

# torchvision's own list, which people's folders follow.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_ANNOTATIONS = "val_annotations.txt"
_LEFT_BY_SYSTEMS = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir")
_VAL_FOLDERS = ("val", "valid", "validation")
_HIDDEN, _OTHER = "hidden files or folders", "other files that are no images of a class"  # what is counted
_LINKS = "links to what is taken elsewhere"
_GREY = ("1", "L")
_DEEP = ("I", "F")  # Pillow's modes, or their beginnings, of more than 8 bits a channel
_TOP_16 = 2**16 - 1


def image_folder(path: Path, image_size: int | None) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """Load images from a folder per class; return the arrays of each part, the classes' names, and what was left out.

    The parts are the folders train, val (or valid, validation) and test of `path`; without them, `path` itself holds
    the classes' folders, which are the training part. In a class's folder images may lie at any depth. Hidden files are
    left out; links are followed, and each real file is taken once.

    Images are uint8, (N, H, W) where every one is grey, else (N, H, W, 3), or, all grey of 16 bits, uint16. Classes
    are numbered by their folders' names in order.

    Tiny ImageNet's own layout is recognised by its val/val_annotations.txt, which names the class of each image in
    val/images: they are the test part, since its test images have no labels.

    Args:
        path: the folder.
        image_size: each image is scaled and centrally cropped to a square of that many pixels; None: all must be of one
            size.

    Raises:
        UserError: naming the folder or the file, for what is missing, empty, broken or of another size.

    """
    there = kind_of_file(path)
    if there != "folder":
        raise UserError(f"{path} is not a folder" if there else f"{path} does not exist")
    search = _Search()
    annotations = path / "val" / _ANNOTATIONS
    if annotations.is_file():
        return _tiny_imagenet(path, annotations, image_size, search)
    folders = _part_folders(path, search)
    found = {part: search.folders(folder) for part, folder in folders.items()}
    search.own |= {os.path.realpath(folders[part] / name) for part in folders for name in found[part]}
    classes = found["train"]
    if not classes:
        raise UserError(
            f"{folders['train']} holds no images: any class folder, {folders['train']}/<class>/, is lacking"
        )
    files, labels, parts = [], [], []
    for part, folder in folders.items():
        before = len(files)
        for name in found[part]:
            if name not in classes:
                raise UserError(f"{folder} has the class {name!r}, which {folders['train']} has not")
            images = search.images(folder / name)
            if not images and part == "train":
                raise UserError(f"{folder / name} holds no image ({', '.join(_SUFFIXES)}) that is not elsewhere too")
            files += images
            labels += [classes.index(name)] * len(images)
            parts += [part] * len(images)
        if len(files) == before:
            raise UserError(f"{folder} holds no image; images are expected in {folder}/<class>/")
    pictures, y, part_of = _pictures(files, image_size), np.array(labels), np.array(parts)
    arrays = {}
    for part in folders:
        own = part_of == part
        arrays |= {f"x_{part}": pictures[own], f"y_{part}": y[own]}
    return arrays, tuple(classes), search.notes()


def _tiny_imagenet(
    path: Path, annotations: Path, image_size: int | None, search: "_Search"
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """Return what `image_folder` does, of Tiny ImageNet as it is published: train/<class>/images and val/images."""
    train = path / "train"
    classes = search.folders(train) if train.is_dir() else []
    if not classes:
        raise UserError(f"{annotations} is Tiny ImageNet's, and {train}/<class>/images is lacking")
    files, labels = [], []
    for label, name in enumerate(classes):
        images = search.images(train / name)
        if not images:
            raise UserError(f"{train / name} holds no image ({', '.join(_SUFFIXES)})")
        files += images
        labels += [label] * len(images)
    trained = len(files)
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{annotations} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        word, file = rest.partition("\t")[0].strip(), path / "val" / "images" / name
        if word not in classes:
            raise UserError(f"{annotations}, line {number} has the class {word!r}, which {train} has not")
        if not file.is_file():
            raise UserError(f"{annotations}, line {number} names {name!r}, which {file.parent} has not")
        files.append(file)
        labels.append(classes.index(word))
    if len(files) == trained:
        raise UserError(f"{annotations} names no image")
    pictures, y = _pictures(files, image_size), np.array(labels)
    note = "Tiny ImageNet's layout: its val images are the test part, and its test images, without labels, are left out"
    arrays = {
        "x_train": pictures[:trained],
        "y_train": y[:trained],
        "x_test": pictures[trained:],
        "y_test": y[trained:],
    }
    return arrays, tuple(classes), (note, *search.notes())


def _part_folders(path: Path, search: "_Search") -> dict[str, Path]:
    """Return the folder of each part that there is, the training part's first."""
    inside = search.folders(path)
    vals = [name for name in _VAL_FOLDERS if name in inside]
    if "train" not in inside:
        if not inside or "test" in inside or vals:
            raise UserError(
                f"{path} has no folder train; images are expected in {path / 'train'}/<class>/, or in {path}/<class>/"
            )
        return {"train": path}
    if len(vals) > 1:
        raise UserError(f"{path} has the folders {' and '.join(vals)}; only one can be the validation part")
    folders = {"train": path / "train"}
    if vals:
        folders["val"] = path / vals[0]
    if "test" in inside:
        folders["test"] = path / "test"
    search.count["folders beside train"] += len(inside) - len(folders)
    return folders


@dataclass
class _Search:
    """Walk over folders, taking each real file once, and count what is left out.

    Attributes:
        count: how many were left out, by why.
        own: the real paths of all class folders. What lies in one of them is found there, and by no link from
            elsewhere, since then it would have another class, or be in two parts.

    """

    count: Counter[str] = field(default_factory=Counter)
    own: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)  # real paths of files and of folders
    _looked_into: set[Path] = field(default_factory=set)

    def folders(self, folder: Path) -> list[str]:
        """Return the names of the folders in a folder, in order."""
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if folder not in self._looked_into:
            self._looked_into.add(folder)
            self.count[_HIDDEN] += sum(_hidden(entry.name) for entry in entries)
            self.count[_OTHER] += sum(not entry.is_dir() and not _hidden(entry.name) for entry in entries)
        return [entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name)]

    def images(self, folder: Path) -> list[Path]:
        """Return the images in a folder and below it, in order."""
        found = []
        for inside, files in self._walk(folder):
            for name in sorted(files):
                file = Path(inside, name)
                if file.suffix.lower() not in _SUFFIXES:
                    self.count[_OTHER] += 1
                elif not file.is_file():
                    raise UserError(f"{file} is no image that can be read; it is a link to nothing, or no regular file")
                elif self._first(file):
                    found.append(file)
        return found

    def notes(self) -> tuple[str, ...]:
        """Return a line about what was left out, or none where that is nothing."""
        left = ", ".join(f"{number} {what}" for what, number in self.count.items() if number)
        return (f"left out: {left}",) if left else ()

    def _walk(self, folder: Path) -> list[tuple[str, list[str]]]:
        """Return the folders at and below one, in their paths' order, each with the names of its files."""
        if os.path.realpath(folder) in self._seen:
            return []
        self._seen.add(os.path.realpath(folder))
        walked = []
        for inside, folders, files in os.walk(folder, followlinks=True):
            self.count[_HIDDEN] += sum(_hidden(name) for name in (*folders, *files))
            folders[:] = [name for name in sorted(folders) if not _hidden(name) and self._first(Path(inside, name))]
            walked.append((inside, [name for name in files if not _hidden(name)]))
        return sorted(walked)

    def _first(self, path: Path) -> bool:
        """Return whether this is where a file or a folder is taken."""
        real = os.path.realpath(path)
        if real in self._seen or (path.is_symlink() and self._leads_to_a_class(real)):
            self.count[_LINKS] += 1
            return False
        self._seen.add(real)
        return True

    def _leads_to_a_class(self, real: str) -> bool:
        """Return whether a real path lies in a class's folder or holds one."""
        inside = any(str(parent) in self.own for parent in (Path(real), *Path(real).parents))
        return inside or any(own.startswith(real.rstrip(os.sep) + os.sep) for own in self.own)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


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
        if picture.dtype != pictures[0].dtype:
            bits, first_bits = 8 * picture.itemsize, 8 * pictures[0].itemsize
            raise UserError(
                f"{file} has {bits} bits a channel and {files[0]} has {first_bits}; convert all to one depth"
            )
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    return np.stack(pictures)


def _picture(file: Path, image_size: int | None) -> np.ndarray:
    """Return one image as `decoded` does, scaled and centrally cropped to a square where its size is given."""
    from PIL import Image, ImageOps

    if image_size is None:
        return decoded(file)
    square = (image_size, image_size)
    return decoded(file, lambda picture: ImageOps.fit(picture, square, Image.Resampling.BILINEAR))


def decoded(file: Path, scaled: Callable[[Any], Any] | None = None, *, upright: bool = False) -> np.ndarray:
    """Decode one image: (H, W) where it is grey, uint8 or, of 16 bits, uint16; and (H, W, 3) uint8 otherwise.

    Args:
        file: the image file.
        scaled: applied to Pillow's image before it becomes an array.
        upright: whether to rotate it as its EXIF orientation says.

    Raises:
        UserError: for a file that is no image, is damaged, or has too many pixels.

    """
    from PIL import Image, ImageOps

    try:
        with _quiet_about_size(), Image.open(file) as image:
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
            deep = image.mode.startswith(_DEEP)
            if deep:
                _check_depth(file, np.asarray(image))
            # Of deep modes Pillow scales floats alone everywhere; they hold 16 bits exactly.
            picture = image.convert("F" if deep else "L" if image.mode in _GREY else "RGB")
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise UserError(
            f"{file} has {int(pixels[0]) if pixels else 0:,} pixels, and images of more than "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} are not read: so few bytes could fill the memory. Make it smaller"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{file} is no image that can be read; it is cut short, damaged or another file") from error
    if scaled is not None:
        picture = scaled(picture)
    return np.asarray(picture).round().astype(np.uint16) if deep else np.asarray(picture)


@contextmanager
def _quiet_about_size() -> Iterator[None]:
    """Suppress Pillow's warning about images of half as many pixels as those that it refuses."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _check_depth(file: Path, values: np.ndarray) -> None:
    """Raise UserError unless the values of a deep image are those of 16 bits."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > _TOP_16:
        raise UserError(f"{file} has more than 16 bits a channel; convert it to 8 or 16 bits")
