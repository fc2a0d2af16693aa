"""A small synthetic scene for view synthesis: diffuse spheres, ray-traced from many sides."""

import math

import numpy as np

# x, y, z (upwards), radius; red, green, blue.
_SPHERES = np.array(
    [
        [0.0, 0.0, 0.1, 0.5, 0.9, 0.3, 0.2],
        [0.75, 0.2, -0.15, 0.32, 0.2, 0.6, 0.9],
        [-0.55, 0.6, -0.1, 0.35, 0.95, 0.8, 0.25],
        [-0.3, -0.75, -0.2, 0.28, 0.3, 0.8, 0.35],
        [0.3, -0.35, 0.7, 0.22, 0.85, 0.85, 0.9],
    ]
)
_LIGHT = np.array([0.4, -0.5, 0.768])
_AMBIENT = 0.3
_ABREAST = 2  # rays in a pixel, each way, which are averaged
_DISTANCE = 4.0  # of the cameras to the middle
_FOCAL = 1.389  # in widths of an image: a view of 40 degrees


def spheres(views: int, size: int) -> dict[str, np.ndarray]:
    """Render images of five diffuse spheres on black, from cameras on a dome that look at the middle.

    Args:
        views: N.
        size: H = W, in pixels.

    Returns:
        `images` (N, H, W, 3), float32 levels from 0 to 1; `poses` (N, 4, 4), camera to world, float32; `focal`, a
        scalar in pixels: what `tiny_nerf_data.npz` holds, and equal for equal arguments.

    """
    poses = np.stack([_looking_at_the_middle(n, views) for n in range(views)])
    focal = _FOCAL * size
    images = []
    for pose in poses:
        origins, directions = rays(pose[None], size * _ABREAST, size * _ABREAST, focal * _ABREAST)
        fine = _seen(origins.astype(np.float64), directions.astype(np.float64))
        images.append(fine.reshape(size, _ABREAST, size, _ABREAST, 3).mean((1, 3)))
    return {"images": np.stack(images).astype(np.float32), "poses": poses, "focal": np.array(focal, np.float32)}


def rays(poses: np.ndarray, height: int, width: int, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the origins of the rays of all pixels and their directions, of length 1, (N H W, 3) float32 each.

    A camera looks along its -z, x to the right and y upwards (OpenGL's); a pixel is seen through its centre.

    Args:
        poses: (N, 4, 4) or (N, 3, 4), camera to world.
        height: H, in pixels.
        width: W.
        focal: the focal length, in pixels.

    """
    row, column = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    local = np.stack([(column - width / 2) / focal, (height / 2 - row) / focal, -np.ones_like(row)], -1)
    directions = np.einsum("nij,hwj->nhwi", poses[:, :3, :3].astype(np.float64), local)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    origins = np.broadcast_to(poses[:, None, None, :3, 3], directions.shape)
    return origins.reshape(-1, 3).astype(np.float32), directions.reshape(-1, 3).astype(np.float32)


def _looking_at_the_middle(n: int, views: int) -> np.ndarray:
    """Return the n-th camera's pose, (4, 4): each a golden angle further round, and from 10 to 70 degrees up."""
    up = math.radians(10 + 60 * ((n * 0.381966) % 1 if views > 1 else 0.5))
    round_ = n * math.pi * (3 - math.sqrt(5))
    back = np.array([math.cos(up) * math.cos(round_), math.cos(up) * math.sin(round_), math.sin(up)])
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, _DISTANCE * back], 1)
    return pose.astype(np.float32)


def _seen(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the colours, (N, 3), of the first sphere on each ray, lit from one side; black where there is none."""
    centres, radii, colours = _SPHERES[:, :3], _SPHERES[:, 3], _SPHERES[:, 4:]
    to = origins[:, None] - centres
    half = (to * directions[:, None]).sum(-1)
    root = half**2 - (to**2).sum(-1) + radii**2
    distance = np.where(root > 0, -half - np.sqrt(np.maximum(root, 0)), np.inf)
    distance[distance <= 0] = np.inf
    first = distance.argmin(1)
    met = np.isfinite(distance.min(1))
    reached = np.where(met, distance.min(1), 0.0)
    normals = (origins + reached[:, None] * directions - centres[first]) / radii[first, None]
    light = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ _LIGHT, 0)
    return np.where(met[:, None], colours[first] * light[:, None], 0.0)
