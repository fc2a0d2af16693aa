"""Rays of a pinhole camera, and the scene that they meet."""

import numpy as np

from localearn.data.scene import rays, spheres


def test_rays_go_through_the_centres_of_pixels_as_a_pinhole_camera_has_them():
    """By hand: a camera at (1, 2, 3) that looks along -z, one of whose pixels is half a pixel off its axis each way."""
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    begin, along = rays(pose[None], 2, 4, 5.0)
    assert begin.shape == along.shape == (8, 3) and (begin == [1, 2, 3]).all()
    first = np.array([-1.5 / 5, 0.5 / 5, -1])  # up to the left
    np.testing.assert_allclose(along[0], first / np.linalg.norm(first), rtol=1e-6)
    turned = np.eye(4)
    turned[:3, :3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]  # it looks along -x, y to the right, z upwards
    _, along = rays(turned[None], 2, 4, 5.0)
    np.testing.assert_allclose(along[0] * np.linalg.norm(first), [-1, -0.3, 0.1], rtol=1e-6)


def test_the_spheres_are_seen_where_they_are():
    """The middle of each view looks at the origin, which a red sphere encloses; the first one's corner sees nothing."""
    scene = spheres(6, 9)
    assert scene["images"].shape == (6, 9, 9, 3) and scene["poses"].shape == (6, 4, 4)
    assert (scene["images"] >= 0).all() and (scene["images"] <= 1).all()
    middle = scene["images"][:, 4, 4]
    assert (middle.max(1) > 0.05).all() and (scene["images"][:, 0, 0] == 0).all()
    turn = scene["poses"][:, :3, :3]
    np.testing.assert_allclose(np.linalg.det(turn), 1, rtol=1e-5)
    np.testing.assert_allclose(-4 * turn[:, :, 2] + scene["poses"][:, :3, 3], 0, atol=1e-5)
    assert all(np.array_equal(scene[name], spheres(6, 9)[name]) for name in scene)
