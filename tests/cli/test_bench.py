import functools
import json

import pytest

from localearn.benching.plan import known_rules
from localearn.cli import bench
from localearn.cli.errors import run_command
from localearn.errors import Unsupported, UserError
from localearn.testing.energy import FakeClock, FakeCounter

TINY = ["width=8", "depth=2", "batch=4", "input=[16]", "turns=2", "turn_s=0.001"]


@pytest.mark.slow
def test_joules_stand_in_the_table_where_they_are_measured(tmp_path):
    clock = FakeClock()
    asked = ["rules=[backprop]", *TINY, f"out={tmp_path}"]
    assert bench.main(asked, lambda device: FakeCounter(clock, label="measured")) == 0
    assert "joules a 1,000 samples |" in (tmp_path / "bench.md").read_text()
    assert bench.main(asked, lambda device: None) == 0
    page = (tmp_path / "bench.md").read_text()
    assert "Joules are absent" in page and "joules a 1,000" not in page


@pytest.mark.slow
def test_a_bench_writes_its_table_numbers_and_plot(tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["rules=[backprop,mono_forward]", *TINY, "depths=[1,2]", "batches=[8]", f"out={out}"]
    assert bench.main([*asked, "mono_forward:algo.schedule=greedy"]) == 0
    assert str(out / "bench.md") in capsys.readouterr().out
    record = json.loads((out / "bench.json").read_text())
    assert [(b["axis"], b["depth"], b["batch"]) for b in record["benches"]] == [
        ("base", 2, 4), ("depth", 1, 4), ("batch", 2, 8),
    ]  # fmt: skip
    rules = {rule["algo"]: rule for rule in record["benches"][0]["rules"]}
    assert rules["backprop"]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert rules["mono_forward"]["step_s"]["median"] > 0
    page = (out / "bench.md").read_text()
    assert "| mono_forward |" in page and "against depth" in page and "| depth | 1 | 2 |" in page
    assert "| batch | 4 | 8 |" in page
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_rule_that_does_not_serve_the_net_is_left_out_and_told(tmp_path, capsys):
    asked = ["rules=[pepita]", "net=resnet20", "net.widths=[4]", "net.blocks=1", "input=[3,8,8]", "batch=4"]
    assert bench.main([*asked, "turns=1", "turn_s=0.001", f"out={tmp_path}"]) == 0
    assert "left out: pepita" in capsys.readouterr().out
    assert "Left out: pepita" in (tmp_path / "bench.md").read_text()


def test_a_rule_may_have_a_net_of_its_own_beside_backprops(tmp_path):
    asked = ["rules=[backprop,model_free]", *TINY, "model_free:net=physical", "model_free:net.modes=3"]
    assert bench.main([*asked, f"out={tmp_path}"]) == 0
    (measured,) = json.loads((tmp_path / "bench.json").read_text())["benches"]
    products = {rule["algo"]: rule["multiply_adds"] for rule in measured["rules"]}
    # Optics of 3 values, twice a product for its real and imaginary part; the map forward and its weights' gradient.
    # Of 4 rows with a true and a wrong label each, whose 10 classes are appended to 16 values.
    assert products["model_free"] == 2 * 4 * sum(2 * 3 * n + 2 * 3 * 8 for n in (16 + 10, 8))


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    main = functools.partial(bench.main, energy_of=lambda device: pytest.fail("measured"))
    assert run_command(main, [*TINY, f"out={tmp_path / 'file' / 'out'}"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_measured_stays_when_a_later_size_is_more_than_the_memory_holds(tmp_path, capsys):
    asked = ["rules=[mono_forward]", *TINY, f"batches=[8,{10**15}]", f"out={tmp_path}"]
    assert run_command(bench.main, asked) == 2
    assert f"out of memory at width 8, depth 2, batch {10**15}; try smaller sizes" in capsys.readouterr().err
    assert [b["batch"] for b in json.loads((tmp_path / "bench.json").read_text())["benches"]] == [4, 8]


def test_quick_is_smaller_and_what_is_typed_wins():
    quick, whole = bench.parse(["--quick"]), bench.parse([])
    assert quick.sizes[0][1].width == 1000 and whole.sizes[0][1].width == 2000
    assert [axis for axis, _ in quick.sizes] == ["base", "depth", "depth"]
    assert bench.parse(["--quick", "batch=7"]).sizes[0][1].batch == 7
    assert whole.rules == known_rules()
    assert bench.parse(["rules=[pepita]"]).rules == ["backprop", "pepita"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("rules=[mono_foward]", "did you mean 'mono_forward'"),
        ("rules=[]", "cannot read the list"),
        ("width=0", "width takes whole numbers of 1 or more"),
        ("depths=[1,x]", "depths takes whole numbers"),
        ("input=[a]", "input takes whole numbers"),
        ("turn_s=0", "turn_s takes seconds above 0"),
        ("precision=fp16", "precision is fp32 or bf16"),
        ("net=cnn", "needs its rows' shape"),
        ("net=mpl", "did you mean 'mlp'"),
        ("categories=[0]", "categories takes whole numbers of 1 or more"),
        ("step=blocks", "step is all or block"),
        ("capture=on", "capture is off, auto, graph or compile"),
        ("quick", "write key=value"),
        ("mono_foward:algo.schedule=greedy", "'mono_foward' is not among the rules; did you mean 'mono_forward'"),
    ],
)
def test_wrong_words_are_told(argument, said):
    with pytest.raises(UserError, match=said):
        bench.parse([argument])


def test_the_mlps_sizes_are_no_other_nets():
    with pytest.raises(UserError, match="width= is the MLP's"):
        bench.parse(["net=cnn", "input=[3,8,8]", "width=3"])
    with pytest.raises(UserError, match="no key 'batch_sise'"):
        bench.main(["batch_sise=3", *TINY])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net=transformer", "input=[16,5]", "vocabulary=9"], r"input=\[16,5\] has more sides; use input=\[T\]"),
        (["net=deepfm", "input=[3]", "vocabulary=9", "categories=[4]"], "give one of them"),
        (["net=deepfm", "input=[1]", "categories=[9,8]"], r"input=\[1\] has fewer of them"),
        (["net=deepfm", "input=[3,3]", "categories=[9]"], r"input=\[3,3\] has fewer of them"),
    ],
)
def test_rows_that_cannot_be_ids_or_codes_are_told(arguments, said):
    with pytest.raises(UserError, match=said):
        bench.parse(arguments)


def test_rows_that_the_net_does_not_take_are_told_by_backprops_refusal(tmp_path):
    for arguments, said in (
        (["vocabulary=9"], "MLP takes values, and made up has 9 tokens"),
        (["categories=[9]"], "MLP takes values alone; use net=deepfm"),
    ):
        with pytest.raises(Unsupported, match=said):
            bench.main([*TINY, *arguments, f"out={tmp_path}"])


def test_a_bench_of_codes_says_how_many(tmp_path):
    asked = ["rules=[mono_forward]", "net=deepfm", "net.widths=[8]", "input=[3]", "categories=[9,7]", "batch=4"]
    assert bench.main([*asked, "turns=1", "turn_s=0.001", f"out={tmp_path}"]) == 0
    assert json.loads((tmp_path / "bench.json").read_text())["benches"][0]["categories"] == [9, 7]
    assert (tmp_path / "bench.md").read_text().startswith("# deepfm, 4 rows of 3, 9 and 7 categories, fp32")
