import json
import shutil

import numpy as np
import pytest
import torch

from localearn import exporting
from localearn.cli import export, run
from localearn.errors import UserError
from localearn.training.loading import load_net
from tests.marks import slow_but

SMALL = ["dataset.train_size=80", "epochs=1", "energy.enabled=false", "progress=false"]
CASES = {
    "mlp": ["algo=mono_forward", "dataset=digits", "net.widths=[8]"],
    "cnn": ["algo=backprop", "dataset=digits", "net=cnn", "net.channels=[4,4]"],
    "resnet": ["algo=backprop", "dataset=digits", "net=resnet20", "net.blocks=1"],
    "gcn": ["algo=backprop", "dataset=karate", "net.widths=[4]"],
    "transformer": ["algo=mono_forward", "dataset=text", "net.width=8", "net.heads=2"],
    "gru": ["algo=backprop", "dataset=text", "net=gru", "net.widths=[6]"],
    "lstm": ["algo=backprop", "dataset=text", "net=lstm", "net.widths=[6]"],
    "state_feedback": ["algo=state_feedback", "dataset=text", "net.widths=[6]"],
    "diagonal": ["algo=mono_forward", "dataset=text", "net=gru", "net.widths=[6]", "net.through_time=diagonal"],
    "resnet18": ["algo=mono_forward", "dataset=digits", "net=resnet18", "net.widths=[4,6]", "net.blocks=1"],
    "mobilenet": ["algo=backprop", "dataset=digits", "net=mobilenet_v3_small", "net.width=0.1"],
    "vit": ["algo=mono_forward", "dataset=digits", "net=vit_6x128", "net.patch=2", "net.width=8", "net.layers=3"],
    "mixer": ["algo=mono_forward", "dataset=digits", "net=mixer_6x128", "net.patch=2", "net.width=8", "net.layers=2"],
    "grouped": ["algo=mono_forward", "dataset=digits", "net=vit", "net.patch=4", "net.width=12", "net.group=5"],
    "physical": ["algo=mono_forward", "dataset=digits", "net=physical", "net.widths=[6,5]"],
    "cafo": ["algo=cafo", "dataset=digits", "net.widths=[8]"],
    "gcn_top_down": ["algo=forward_gnn", "algo.top_down=input", "algo.schedule=joint", "dataset=karate",
                     "net.widths=[4,4]"],
}  # fmt: skip


def short_text(folder):
    path = folder.with_suffix(".txt")
    path.write_text("to be or not to be\n" * 20, encoding="utf-8")
    return path


def inputs(net, rows):
    if net.takes.vocabulary is not None:
        return torch.randint(net.takes.vocabulary, (rows, *net.input_shape))
    return torch.randn(rows, *net.input_shape)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a small run of a case; each is trained once."""
    folders = {}

    def train(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp("runs") / name
            whole = "gcn" in name or "dataset=text" in CASES[name]
            small = [option for option in SMALL if not whole or "train_size" not in option]
            small += ["dataset.window=8", f"dataset.path={short_text(folder)}"] * ("dataset=text" in CASES[name])
            assert run.main([*CASES[name], *small, f"out={folder}"]) == 0
            folders[name] = folder
        return folders[name]

    return train


@pytest.mark.parametrize("name", slow_but([name for name in CASES if name != "cafo"], "mlp", "gcn", "transformer"))
def test_a_torch_export_program_gives_the_nets_outputs(trained, tmp_path, capsys, name):
    folder, out = trained(name), tmp_path / "net.pt2"
    assert export.main([str(folder), f"out={out}"]) == 0
    assert "outputs agree" in capsys.readouterr().out
    net, program = load_net(folder), torch.export.load(out).module()
    for rows in (1, 2, 64):
        x = (inputs(net, rows), *([torch.randint(rows, (2, 5))] if net.graph else []))
        torch.testing.assert_close(program(*x), net(*x))


@pytest.mark.parametrize("name", slow_but([name for name in CASES if name != "cafo"], "cnn", "gcn", "lstm"))
def test_an_onnx_graph_gives_the_nets_outputs(trained, tmp_path, capsys, name):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    folder, out = trained(name), tmp_path / "net.onnx"
    assert export.main([str(folder), "format=onnx", f"out={out}"]) == 0
    assert "outputs agree" in capsys.readouterr().out
    net, session = load_net(folder), onnxruntime.InferenceSession(out)
    assert [given.name for given in session.get_inputs()] == ["x", "edge_index"][: 1 + net.graph]
    for rows in (1, 64):
        x = {"x": inputs(net, rows)}
        if net.graph:
            x["edge_index"] = torch.randint(rows, (2, 5))
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in x.items()})
        torch.testing.assert_close(torch.from_numpy(logits), net(*x.values()).detach(), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Return the folder of a run on an archive whose labels are words."""
    folder = tmp_path_factory.mktemp("named")
    np.savez(folder / "own.npz", x=np.arange(120.0).reshape(40, 3), y=np.array(["yew", "ash"] * 20))
    data = [f"dataset.path={folder / 'own.npz'}", "dataset=npz", "net.widths=[4]"]
    small = [option for option in SMALL if "train_size" not in option]
    assert run.main(["algo=backprop", *data, *small, f"out={folder / 'run'}"]) == 0
    return folder / "run"


def test_the_names_of_the_classes_are_in_the_program(named, tmp_path):
    assert json.loads((named / "run.json").read_text())["diagnostics"]["class_names"] == ["ash", "yew"]
    assert load_net(named).class_names == ("ash", "yew")
    assert export.main([str(named), f"out={tmp_path / 'net.pt2'}"]) == 0
    beside = {"class_names": ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=beside)
    assert json.loads(beside["class_names"]) == ["ash", "yew"]


def test_the_names_of_the_classes_are_in_the_onnx_graph(named, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    assert export.main([str(named), "format=onnx", f"out={tmp_path / 'net.onnx'}"]) == 0
    meta = onnxruntime.InferenceSession(tmp_path / "net.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(meta["class_names"]) == ["ash", "yew"]


def test_a_rule_that_predicts_by_more_than_its_net_is_told(trained, tmp_path, capsys):
    export.main([str(trained("cafo")), f"out={tmp_path / 'a.pt2'}"])
    assert "cafo predicts by more than its net" in capsys.readouterr().out
    export.main([str(trained("gcn_top_down")), f"out={tmp_path / 'c.pt2'}"])
    assert "forward_gnn predicts by more than its net" in capsys.readouterr().out
    export.main([str(trained("mlp")), f"out={tmp_path / 'b.pt2'}"])
    assert "predicts by" not in capsys.readouterr().out


def test_a_rule_that_cannot_be_built_here_is_told(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained("mlp"), folder)
    record = json.loads((folder / "run.json").read_text())
    record["config"]["algo"]["_target_"] = "not_installed.Rule"
    (folder / "run.json").write_text(json.dumps(record))
    assert export.main([str(folder)]) == 0
    assert "was not checked whether it predicts by its net alone" in capsys.readouterr().out


def test_a_program_whose_outputs_differ_is_not_left_behind(trained, tmp_path, monkeypatch, capsys):
    write = exporting._torch_export

    def wrong(net, out):
        program = write(net, out)
        return lambda *inputs: 1.001 * program(*inputs)

    monkeypatch.setattr(exporting, "_torch_export", wrong)
    out = tmp_path / "net.pt2"
    assert export.main([str(trained("mlp")), f"out={out}"]) == 1
    assert "differ from the net's by 1.0e-03" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one run's folder"),
        (["a", "b"], "name one run's folder"),
        (["a", "format=onx"], "format is torch_export or onnx, not 'onx'; did you mean 'onnx'"),
        (["a", "fromat=onnx"], "unknown argument 'fromat=onnx'; did you mean 'format'"),
        (["--format"], "unknown argument '--format'; did you mean 'format'"),
        (["nowhere"], "net.safetensors is not there"),
    ],
)
def test_what_does_not_go_is_told_in_a_line(arguments, said):
    if not arguments:
        assert export.main(arguments) == 2
        return
    with pytest.raises(UserError, match=said):
        export.main(arguments)


def test_no_file_is_written_over(trained, tmp_path):
    out = tmp_path / "net.pt2"
    out.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export.main([str(trained("mlp")), f"out={out}"])
    assert out.read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        export.main([str(trained("mlp")), f"out={tmp_path / 'no' / 'folder.pt2'}"])


def test_a_run_that_was_moved_and_whose_record_is_gone_is_exported_all_the_same(trained, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(trained("mlp"), folder)
    (folder / "run.json").write_text(json.dumps({"algo": "gone"}))
    assert export.main([str(folder)]) == 0
    assert (folder / "net.pt2").exists()


def test_a_folder_with_an_equals_sign_is_a_folder(trained, tmp_path, capsys):
    folder = tmp_path / "epoch=9" / "run"
    shutil.copytree(trained("mlp"), folder)
    assert export.main([str(folder), f"out={tmp_path / 'net.pt2'}"]) == 0
    assert "outputs agree" in capsys.readouterr().out
