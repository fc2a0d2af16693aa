"""The command, from runs' folders to a page that opens anywhere."""

import csv
import json
import re
import shutil

import pytest
import torch

import localearn
from localearn.analysing import read_findings
from localearn.cli import analyse, run
from localearn.errors import UserError
from localearn.records import read_record

QUIET = ["energy.enabled=false", "progress=false", "device=cpu"]
SMALL = ["dataset=digits", "net=mlp_2x256", "net.widths=[12,8]", "dataset.train_size=300", *QUIET]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return the folder of three runs on the digits, by rule, the last of which left out classes 3 and 8."""
    root = tmp_path_factory.mktemp("runs")
    for rule, epochs, more in (
        ("backprop", 12, []),
        ("mono_forward", 12, ["diagnose=alignment"]),
        ("forward_forward", 12, ["dataset.leave_out=[3,8]"]),
    ):
        assert run.main([f"algo={rule}", f"epochs={epochs}", *SMALL, f"out={root / rule}", *more]) == 0
    return root


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    """Return the folder of an analysis of all three runs."""
    out = tmp_path_factory.mktemp("page")
    named = [str(folders / rule) for rule in ("backprop", "mono_forward", "forward_forward")]
    assert analyse.main([*named, f"out={out}", "device=cpu", "title=Three rules", "threshold=0.4"]) == 0
    return out


def test_the_page_needs_nothing_beside_it(page):
    text = (page / "analysis.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<h1>Three rules</h1>" in text
    loaded = re.findall(r'(?:src|href)="(?!#|data:image/png;base64,)', text)
    assert not loaded, "links stay on the page, and images in it"
    assert text.count("<svg ") == len(list((page / "analysis-plots").glob("*.png"))) >= 8
    identities = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(identities)) == len(identities)


def test_markdown_csv_and_json_stand_beside_it(page, folders):
    markdown = (page / "analysis.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\((analysis-plots/[^)]+)\)", markdown):
        assert (page / name).is_file()
    with (page / "analysis.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((page / "analysis.json").read_text(encoding="utf-8"))
    assert summary["kind"] == "localearn analysis" and summary["threshold"] == 0.4
    assert len(summary["figures"]) == len(rows)
    assert {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()} == set(summary["files"])

    def values(**asked):
        return [float(row["value"]) for row in rows if all(row[name] == text for name, text in asked.items())]

    (hoyer,) = values(run="backprop", block="2", quantity="hoyer")
    found = {finding.label: finding for finding in read_findings([folders / "backprop"], device="cpu", threshold=0.4)}
    assert hoyer == found["backprop"].blocks[1].hoyer
    assert len(values(run="mono_forward", quantity="angle_1")) == 12, "one after each pass"
    assert len(values(run="forward_forward", block="1", quantity="new_units")) == 2, "of classes 3 and 8"
    assert len(values(quantity="cka")) == 6 * 5 / 2


def test_figures_of_the_page_are_those_of_the_record(folders):
    for finding in read_findings([folders / rule for rule in ("backprop", "mono_forward")], device="cpu"):
        record = read_record(folders / finding.label)
        assert finding.accuracy == pytest.approx(record.metric("accuracy"), abs=1e-6)
    (left_out,) = read_findings([folders / "forward_forward"], device="cpu")
    assert left_out.unseen == (3, 8) and left_out.classes == (0, 1, 2, 4, 5, 6, 7, 9)
    seen = left_out.activities
    assert seen is not None
    right = seen.predicted == seen.labels
    recorded = read_record(folders / "forward_forward").metric("accuracy")
    assert right.double().mean().item() == pytest.approx(recorded, abs=1e-6)
    assert left_out.accuracy == right[~torch.isin(seen.labels, torch.tensor([3, 8]))].double().mean().item()


def test_the_rule_is_built_again_with_its_own_state(folders):
    for rule in ("mono_forward", "forward_forward"):
        data, trainer = localearn.load_rule(folders / rule)
        record = read_record(folders / rule)
        assert not trainer.training and data.fingerprint() == record.data_fingerprint
        with torch.no_grad():
            right = sum((trainer.predict(b.x).argmax(1) == b.target).sum().item() for b in data.batches("test", 100))
        assert right / data.sizes["test"] == pytest.approx(record.metric("accuracy"), abs=1e-6)
        net = localearn.load_net(folders / rule)
        for name, tensor in trainer.net.state_dict().items():
            assert torch.equal(tensor, net.state_dict()[name]), "it is the best epoch's, as the net beside it"


def test_without_a_checkpoint_the_net_does_where_it_predicts_alone(folders, tmp_path):
    for rule in ("mono_forward", "forward_forward"):
        shutil.copytree(folders / rule, tmp_path / rule, ignore=shutil.ignore_patterns("checkpoint*"))
    (whole,) = read_findings([folders / "mono_forward"], device="cpu")
    (bare,) = read_findings([tmp_path / "mono_forward"], device="cpu")
    assert bare.accuracy == whole.accuracy and bare.blocks[1].hoyer == whole.blocks[1].hoyer
    with pytest.raises(
        UserError, match=r"checkpoint.pt is not there, and ForwardForward predicts by more than its net"
    ):
        read_findings([tmp_path / "forward_forward"], device="cpu")


def test_a_folder_is_data_and_no_program(folders, tmp_path):
    shutil.copytree(folders / "backprop", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("localearn.Backprop", "os.system"), encoding="utf-8")
    with pytest.raises(UserError, match=r"algo\._target_ is 'os.system', which is none of localearn's"):
        localearn.load_rule(tmp_path / "run")
    config.write_text(text.replace("split_seed: 0", "split_seed: 1"), encoding="utf-8")
    with pytest.raises(UserError, match="the data are not those that the run was trained on"):
        localearn.load_rule(tmp_path / "run")
    localearn.MonoForward(localearn.MLP((1, 8, 8), 10, widths=(4,))).fit(
        localearn.load("digits", train_size=50), epochs=1, out=tmp_path / "python", energy=False, progress=False
    )
    with pytest.raises(UserError, match="started from Python does not describe its rule and data"):
        localearn.load_rule(tmp_path / "python")


def test_only_an_earlier_analysis_is_written_over(page, folders, tmp_path):
    shutil.copytree(page, tmp_path / "page")
    out = tmp_path / "page"
    (out / "analysis-plots" / "mine.png").write_bytes(b"mine")
    assert analyse.main([str(folders / "backprop"), f"out={out}", "device=cpu"]) == 0
    assert not list((out / "analysis-plots").glob("angles*")), "what this one does not have is gone"
    assert (out / "analysis-plots" / "mine.png").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "analysis.md").write_text("mine")
    with pytest.raises(UserError, match=r"analysis.md exists and is not an earlier analysis's"):
        analyse.main([str(folders / "backprop"), f"out={tmp_path / 'other'}", "device=cpu"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name runs' folders and where to write"),
        (["nowhere"], "nowhere"),
        (["threshold=2"], "threshold takes numbers from 0 to below 1, not '2'"),
        (["treshold=0.2"], "unknown argument 'treshold=0.2'; did you mean 'threshold'"),
        (["rows=0"], "rows takes whole numbers of 1 or more"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(folders, tmp_path, arguments, told):
    named = [] if arguments in ([], ["nowhere"]) else [str(folders / "backprop")]
    with pytest.raises(UserError, match=told):
        analyse.main([*named, *arguments, f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_help_and_a_folder_twice(folders, capsys, tmp_path):
    assert analyse.main(["--help"]) == 0
    assert "localearn analyse DIR... out=DIR" in capsys.readouterr().out
    twice = [str(folders / "backprop"), str(folders / "backprop" / "..") + "/backprop"]
    with pytest.raises(UserError, match="is named twice"):
        analyse.main([*twice, f"out={tmp_path / 'out'}"])
