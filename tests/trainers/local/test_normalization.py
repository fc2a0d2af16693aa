import numpy as np
import pytest
import torch
import torch.nn.functional as F

from localearn.trainers.local.normalization import PeerNormalization, length_normalized


def test_lengths_are_normalised_and_a_row_of_zeros_stays_one():
    h = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    h[1] = 0
    normal = length_normalized(h)
    rms = normal.flatten(1).pow(2).mean(1).sqrt()
    torch.testing.assert_close(rms, torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64), rtol=1e-7, atol=0)
    torch.testing.assert_close(normal[0], h[0] / h[0].pow(2).mean().sqrt())


def test_peers_revive_a_unit_that_is_off_and_remember():
    z = torch.tensor([[-1.0, 2.0], [-3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    peers = PeerNormalization(z, 2, strength=0.03)
    loss = peers(z, z.relu())
    m = 0.9 * 0.5 + 0.1 * np.array([0.0, 3.0])
    assert loss.item() == pytest.approx(0.03 * ((m - m.mean()) ** 2).mean(), rel=1e-12)
    np.testing.assert_allclose(peers.state_dict()["running"], m, rtol=1e-12)
    loss.backward()
    assert z.grad is not None
    np.testing.assert_allclose(z.grad, np.tile(0.03 * (m - m.mean()) * 0.1 / 2, (2, 1)), rtol=1e-12)
    peers(z, z.relu())
    np.testing.assert_allclose(peers.state_dict()["running"], 0.9 * m + 0.1 * np.array([0.0, 3.0]), rtol=1e-12)


def test_peers_follow_the_post_where_it_changes_the_shape():
    z = torch.tensor([[-1.0, 2.0, 3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    PeerNormalization(z, 2, strength=1.0)(z, F.max_pool1d(z, 2)).backward()
    assert z.grad is not None
    assert (z.grad[0] != 0).tolist() == [False, True, True, False]
