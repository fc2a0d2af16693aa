"""Weights go out and come in under the names of the user's own module."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import localearn
from localearn.errors import UserError
from localearn.nets import Net, Pooled
from localearn.records.folder import RunFolder


class Mine(nn.Module):
    """Somebody's own class, that knows nothing of localearn."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.deeper = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 10)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(self.deeper(self.features(x)).mean((2, 3)))

    def net(self, **options) -> Net:
        blocks = [self.features, self.deeper]
        return Net.from_blocks(None, blocks, self.fc, input_shape=(1, 8, 8), view=Pooled(), **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a model that a rule has trained, by its net, the folder of the run, and rows."""
    torch.manual_seed(0)
    model, data = Mine(), localearn.load("digits", train_size=60)
    net = model.net(module=model)
    folder = tmp_path_factory.mktemp("runs") / "mine"
    localearn.MonoForward(net).fit(data, epochs=1, batch_size=20, out=folder)
    return model.eval(), folder, next(data.batches("val", 8)).x


def test_a_runs_file_loads_into_the_users_own_class(trained):
    model, folder, x = trained
    fresh = Mine()
    fresh.load_state_dict(load_file(folder / "net.safetensors"))
    assert torch.equal(fresh.eval()(x), model(x))


def test_and_into_a_net_that_is_cut_the_same_way_however_it_calls_its_parts(trained):
    model, folder, x = trained
    for options in ({"module": (other := Mine())}, {}):
        net = localearn.load_net(folder, net=(other if options else Mine()).net(**options))
        assert torch.equal(net(x), model(x))


def test_weights_that_the_users_class_has_saved_are_read_here(trained, tmp_path):
    model, _, x = trained
    save_file(model.state_dict(), tmp_path / "theirs.safetensors")
    fresh = Mine()
    net = fresh.net(module=fresh)
    localearn.load_weights(net, tmp_path / "theirs.safetensors")
    assert torch.equal(net.eval()(x), model(x))
    localearn.load_weights(net, model.net().state_dict())  # the net's own names


def test_load_state_dict_takes_the_modules_names_and_the_nets(trained):
    model, folder, x = trained
    for state in (load_file(folder / "net.safetensors"), model.net().state_dict()):
        fresh = Mine()
        net = fresh.net(module=fresh)
        net.load_state_dict(state)
        assert torch.equal(net.eval()(x), model(x))
    with pytest.raises(RuntimeError, match="Missing key"):
        Mine().net().load_state_dict({"fc.weight": model.fc.weight})


def test_save_weights_needs_no_run(trained, tmp_path):
    model, _, x = trained
    localearn.save_weights(model.net(module=model), tmp_path / "out.safetensors")
    fresh = Mine()
    fresh.load_state_dict(load_file(tmp_path / "out.safetensors"))
    assert torch.equal(fresh.eval()(x), model(x))


def test_a_file_of_the_nets_own_names_as_they_were_written_before_still_loads(trained, tmp_path):
    model, folder, x = trained
    with safe_open(folder / "net.safetensors", "pt") as file:
        described = json.loads(file.metadata()["localearn"])
    for name in ("names", "sha256"):
        described.pop(name)
    old = RunFolder(tmp_path / "old")
    old.create()
    old.save_net(model.net(), {"localearn": json.dumps(described)})
    assert "blocks.0.op.weight" in load_file(old.net)
    fresh = Mine()
    assert torch.equal(localearn.load_net(old.path, net=fresh.net(module=fresh))(x), model(x))


def test_a_stranger_cannot_point_a_name_at_what_is_not_there(trained, tmp_path):
    model, folder, _ = trained
    with safe_open(folder / "net.safetensors", "pt") as file:
        described = json.loads(file.metadata()["localearn"])
    described.pop("sha256")
    described["names"] |= {"readout.weight": "elsewhere"}
    bad = RunFolder(tmp_path / "bad")
    bad.create()
    bad.save_net(model.net(), {"localearn": json.dumps(described)}, model.state_dict())
    with pytest.raises(UserError, match="its names for the net's tensors"):
        localearn.load_net(bad.path, net=Mine().net())


def test_without_a_module_the_parts_keep_their_own_names():
    names = Mine().net().own_names()
    assert names["blocks.0.op.weight"] == "blocks.0.0.weight"
    assert names["blocks.0.post.0.running_mean"] == "blocks.0.1.running_mean"
    assert names["readout.bias"] == "readout.bias"


def test_a_sequential_and_torchvisions_models_have_their_own(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    sequential = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    localearn.save_weights(Net.from_sequential(sequential), tmp_path / "a")
    assert load_file(tmp_path / "a").keys() == sequential.state_dict().keys()
    model = torchvision.models.resnet18(num_classes=5)
    localearn.save_weights(Net.from_torchvision(model, (3, 32, 32)), tmp_path / "b")
    torchvision.models.resnet18(num_classes=5).load_state_dict(load_file(tmp_path / "b"))


def test_grouped_blocks_have_the_names_of_the_net_that_was_not_grouped(tmp_path):
    net = localearn.MLP((6,), 3, widths=(5, 4, 3))
    localearn.save_weights(net.group(2), tmp_path / "grouped")
    other = localearn.MLP((6,), 3, widths=(5, 4, 3))
    other.load_state_dict(load_file(tmp_path / "grouped"))
    x = torch.randn(7, 6)
    assert torch.equal(other(x), net(x))


def test_weights_that_are_shared_stand_under_each_name(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last.weight = self.first.weight

    model = Tied()
    net = Net.from_blocks(None, [model.first], model.last, input_shape=(4,), module=model)
    localearn.save_weights(net, tmp_path / "tied")
    fresh = Tied()
    fresh.load_state_dict(load_file(tmp_path / "tied"))
    assert torch.equal(fresh.last.weight, model.first.weight)


def test_what_does_not_fit_is_told_and_changes_nothing(tmp_path):
    model = Mine()
    net = model.net(module=model)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    lacking = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if name != "fc.weight"}
    with pytest.raises(UserError, match=r"no fc\.weight \(1 of 11 tensors"):
        localearn.load_weights(net, lacking)
    with pytest.raises(UserError, match=r"fc\.weight has shape \(3, 4\)"):
        localearn.load_weights(net, lacking | {"fc.weight": torch.zeros(3, 4)})
    (tmp_path / "none").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        localearn.load_weights(net, tmp_path / "none")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(UserError, match="is no parameter or buffer of module=, a Linear"):
        model.net(module=nn.Linear(2, 2))
