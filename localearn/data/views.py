"""Views of a scene as rays: from the points of a ray to the colour of the pixel that it passes through."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from localearn.data import files
from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Split, sha256
from localearn.data.coordinates import positional_encoding
from localearn.data.partition import check_fraction, check_seed, held_out_size, hold_out
from localearn.data.pictures import above_each_other
from localearn.data.scene import rays, spheres
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.options import checked_call
from localearn.tasks import ViewSynthesis
from localearn.tasks.views import Density

_TEST_SEED = 0  # of the test views: they are the same for everyone, whatever the seed of the validation
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_ARRAYS = ("images", "poses", "focal")
_MOST_OCTAVES = 12  # of which float32 has the highest to three digits
_MOST_SAMPLES = 1024
_SHOWN = 4  # held-out views in the picture
_RAYS = 512  # that are rendered at once for it


@checked_call
def views(
    path: str | Path | None = None,
    *,
    near: float = 2.0,
    far: float = 6.0,
    samples: int = 32,
    octaves: int = 6,
    background: float = 0.0,
    density: Density = "softplus",
    views: int | None = None,
    size: int | None = None,
    test_fraction: float = 0.1,
    val_fraction: float = 0.1,
    split_seed: int = 0,
) -> "ViewData":
    """Load images of a scene as rays to colours, some views held out, for a net that learns the scene; on the CPU.

    A row is a ray, (samples, 3 + 6 octaves): points at `samples` distances from its camera, one in each of as many
    equal parts of near..far, drawn again in each training pass (stratified sampling) and in the middle otherwise. A
    point is x, y, z, divided by the largest that there is, followed by their positional encoding, for k = 0, 1, ...,
    octaves - 1 sin and cos of 2^k pi x, y, z (Mildenhall et al., arXiv 2003.08934, eq. 4). `ViewSynthesis` renders the
    pixel from a net's colours and densities there, and the run is judged by the PSNR of views that were held out.
    Unlike the source there is no second, finer sampling, and no viewing direction.

    Args:
        path: an .npz file as `tiny_nerf_data.npz`: `images` (N, H, W, 3), levels from 0 to 1 or uint8, `poses`
            (N, 4, 4), camera to world, the camera looking along its -z, and `focal`, in pixels. Without one five
            spheres are rendered, see `localearn.data.scene`.
        near: the beginning of a ray's first part, a distance from the camera in the unit of the poses.
        far: the end of its last part.
        samples: S, the points of a ray.
        octaves: see above; 0 leaves x, y and z alone.
        background: the level behind all points, 0 for black, 1 for white.
        density: the map from a net's output to a density, "softplus" or, as the source has it, "relu"; see
            `ViewSynthesis`.
        views: of the spheres, the number of images; 40 by default.
        size: of the spheres, the pixels of an image each way; 32 by default.
        test_fraction: the share of views that is held out as the test, the same ones for every split_seed.
        val_fraction: the share of the others that is held out for validation.
        split_seed: of that draw.

    Raises:
        UserError: for a file that is no such archive, and for options out of their range.

    Example:
        data = localearn.data.views()
        net = localearn.MLP(data.input_shape, 4, widths=(64,) * 4, reads="positions", init="glorot_uniform")
        localearn.DirectFeedbackAlignment(net.for_task(data.task)).fit(data, epochs=20)

    """
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    check_seed("split_seed", split_seed)
    if not 0 <= near < far:
        raise UserError(f"near is {near} and far {far}; they must be distances from the camera, near < far")
    for option, number, least, most in (("samples", samples, 1, _MOST_SAMPLES), ("octaves", octaves, 0, _MOST_OCTAVES)):
        if not least <= number <= most:
            raise UserError(f"{option} is {number}; it must lie between {least} and {most}")
    if path is None:
        for option, number, least in (("views", views, 3), ("size", size, 2)):
            if number is not None and not least <= number <= 1024:
                raise UserError(f"{option} is {number}; it must lie between {least} and 1024")
        where, arrays = "views", spheres(views or 40, size or 32)
    elif views is not None or size is not None:
        raise UserError("views and size are of the spheres that are rendered without a path; a file has its own")
    else:
        where = str(Path(path).expanduser())
        arrays = _checked(where, files.read(Path(path).expanduser(), _ARRAYS))
    every = np.zeros(len(arrays["images"]), dtype=np.int64)
    rest, test = hold_out(every, held_out_size("test", len(every), test_fraction, where=where), _TEST_SEED)
    train, val = hold_out(every[rest], held_out_size("val", len(rest), val_fraction, where=where), split_seed)
    split = {"train": rest[train], "val": rest[val], "test": test}
    task = ViewSynthesis(length=far - near, background=background, density=density)
    data = ViewData("views", arrays, {name: split[name] for name in _SPLITS}, task, near, samples, octaves)
    shape = "x".join(str(n) for n in arrays["images"].shape[2:0:-1])
    data.notes = (f"{len(every)} views of {shape} pixels, {samples} points a ray, {octaves} octaves",)
    return data


class ViewData(ArrayData):
    """Hold rays of images and the colours of their pixels; the points on rays are computed per batch, on the device."""

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        of_split: Mapping[Split, np.ndarray],
        task: ViewSynthesis,
        near: float,
        samples: int,
        octaves: int,
    ) -> None:
        """Hold each split's rays.

        Args:
            name: the data set's name in records.
            arrays: images, poses and focal, checked.
            of_split: for each split the numbers of its views.
            task: its length is far - near.
            near: where a ray's first part begins.
            samples: S, the points of a ray.
            octaves: of the positional encoding.

        """
        images, poses, focal = (arrays[key] for key in _ARRAYS)
        height, width = images.shape[1:3]
        self.pixels, self.samples, self.octaves, self.near = (height, width), samples, octaves, near
        self._span = task.length
        x: dict[Split, Tensor] = {}
        y: dict[Split, Tensor] = {}
        largest = 0.0
        for split, own in of_split.items():
            begin, along = rays(poses[own], height, width, float(focal))
            ends = [begin + distance * along for distance in (near, near + task.length)]
            largest = max(largest, *(float(np.abs(end).max()) for end in ends))
            x[split] = torch.from_numpy(np.concatenate([begin, along], 1))
            y[split] = torch.from_numpy(np.ascontiguousarray(images[own].reshape(-1, 3), dtype=np.float32))
        self.scale = largest or 1.0
        super().__init__(name, x, y, 0, task=task)
        self.augmented = True  # the points of a ray are drawn in every pass
        self.target_names = ("red", "green", "blue")

    def fingerprint(self) -> str:
        """Return a SHA-256 of every split's rays and colours, and of how points are computed from them."""
        if self._fingerprint is None:
            tensors = [(f"{letter} {s}", t[s]) for s in self._y for letter, t in (("x", self._x), ("y", self._y))]
            note = f"{self.task} near={self.near} samples={self.samples} octaves={self.octaves}"
            self._fingerprint = sha256(tensors, note)
        return self._fingerprint

    def points(self, own: Tensor, places: Tensor) -> Tensor:
        """Compute the encoded points of rays, (N, S, 3 + 6 octaves).

        Args:
            own: the rays, (N, 6).
            places: (N, S) or (S,) in 0..1, where in its part of near..far each point lies.

        """
        steps = torch.arange(self.samples, device=own.device, dtype=own.dtype)
        distance = self.near + (steps + places) * (self._span / self.samples)
        where = own[:, None, :3] + distance.expand(len(own), -1).unsqueeze(-1) * own[:, None, 3:]
        return positional_encoding(where / self.scale, self.octaves)

    @torch.no_grad()
    def illustrate(self, predict: Callable[..., Tensor], folder: Path) -> tuple[str, ...]:
        """Write the first held-out views above the net's renderings of them, `views.png`."""
        task = self.task
        assert isinstance(task, ViewSynthesis)
        height, width = self.pixels
        count = min(_SHOWN, len(self._y["test"]) // (height * width))
        own, true = (part["test"][: count * height * width] for part in (self._x, self._y))
        middle = own.new_full((self.samples,), 0.5)
        rendered = torch.cat([task.render(predict(self.points(part, middle))) for part in own.split(_RAYS)])
        errors = (rendered - true).square().view(count, -1).mean(1).cpu().tolist()
        psnr = ", ".join(f"{-10 * math.log10(error):.1f}" if error else "inf" for error in errors)
        levels = [
            list((colours.clamp(0, 1) * 255).round().to(torch.uint8).view(count, height, width, 3).cpu().numpy())
            for colours in (true, rendered)
        ]
        path = folder / "views.png"
        above_each_other(levels, ("held-out views", f"rendered, {psnr} dB"), path)
        return (f"{count} held-out views above their rendering, {psnr} dB: {path}",)

    def _set_rows(self, x: Mapping[Split, Tensor], y: Mapping[Split, Tensor]) -> None:
        super()._set_rows(x, y)
        self.kind, self.input_shape = "sequence", (self.samples, 3 + 6 * self.octaves)

    def _in_order(self, split: Split, batch_size: int, skip: int) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        middle = x.new_full((self.samples,), 0.5)
        for start in range(skip * batch_size, len(y), batch_size):
            own = self._rank_rows(min(batch_size, len(y) - start), start)
            yield Batch(self.points(x[own], middle), y[own])

    def _shuffled(
        self, split: Split, order: Tensor, batch_size: int, skip: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        x, y = self._x[split], self._y[split]
        for start in range(skip * batch_size, len(order), batch_size):
            size = min(batch_size, len(order) - start)
            chosen = order[self._rank_rows(size, start)]
            places = x.new_full((self.samples,), 0.5)
            if split == "train":
                drawn = torch.rand(size, self.samples, generator=generator, device=generator.device)
                places = drawn[self._rank_rows(size)].to(x.device, non_blocking=True)
            yield Batch(self.points(x.index_select(0, chosen), places), y.index_select(0, chosen))


def _checked(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return images as float32, (N, H, W, 3), poses as float32, (N, 3, 4), and the focal length.

    Raises UserError for a wrong type or shape, for values that are not finite or out of their range, and for poses
    that do not turn a camera.
    """
    images, poses, focal = (arrays[key] for key in _ARRAYS)
    if (images.dtype != np.uint8 and images.dtype.kind != "f") or images.ndim != 4 or images.shape[-1] != 3:
        more = "; put what is transparent on a background first" if images.ndim == 4 and images.shape[-1] == 4 else ""
        has = f"{images.dtype} with shape {images.shape}"
        raise UserError(f"{where}: images is {has}; levels from 0 to 1 or uint8, (N, H, W, 3), are expected{more}")
    if min(images.shape) < 1:
        raise UserError(f"{where}: images has shape {images.shape}, which is empty")
    if poses.dtype.kind not in "fiu" or poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)):
        has = f"{poses.dtype} with shape {poses.shape}"
        raise UserError(f"{where}: poses is {has}; camera-to-world matrices, (N, 4, 4), are expected")
    if len(poses) != len(images):
        raise UserError(f"{where}: there are {len(images)} images and {len(poses)} poses; one is of each")
    if focal.dtype.kind not in "fiu" or focal.size != 1:
        raise UserError(f"{where}: focal is {focal.dtype} with shape {focal.shape}; one number, in pixels, is expected")
    for name, values in (("images", images), ("poses", poses), ("focal", focal)):
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise UserError(f"{where}: {name} holds {bad} of {values.size} values that are NaN or infinite")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise UserError(
            f"{where}: images runs from {low:.4g} to {high:.4g}; levels from 0 to 1, or uint8, are expected"
        )
    length = float(focal.reshape(()))
    if not length > 0:
        raise UserError(f"{where}: focal is {length:g}; a length in pixels is expected")
    turn = poses[:, :3, :3].astype(np.float64)
    off = np.abs(np.einsum("nij,nik->njk", turn, turn) - np.eye(3)).max((1, 2))
    if off.max() > 0.01:
        raise UserError(
            f"{where}: poses[{int(off.argmax())}] is no camera-to-world matrix: its axes are not at right angles"
        )
    return {
        "images": images.astype(np.float32),
        "poses": poses[:, :3].astype(np.float32),
        "focal": np.array(length, np.float32),
    }


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
