"""A language model writes: the same text for a seed, from Python and from the command line, and beside a record."""

import json
import math
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import localearn
from localearn.cli import run, sample
from localearn.data.text import SAMPLE_TOKENS
from localearn.errors import UserError

RUN = ["dataset=text", "net=transformer", "net.width=8", "net.heads=2", "dataset.window=16", "epochs=1"]
QUIET = ["energy.enabled=false", "progress=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run on a text of our own, and what it printed."""
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    path = folder / "mine.txt"
    path.write_text("".join(draw.choice("abc \n") for _ in range(3000)), encoding="utf-8")
    assert run.main([*RUN, *QUIET, f"dataset.path={path}", "algo=mono_forward", f"out={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_run_leaves_a_sample_and_prints_its_beginning(tmp_path, capsys):
    path = tmp_path / "mine.txt"
    path.write_text("to be or not to be\n" * 60, encoding="utf-8")
    out = tmp_path / "run"
    assert run.main([*RUN, *QUIET, f"dataset.path={path}", "algo=backprop", f"out={out}"]) == 0
    written = (out / "sample.txt").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert f"is in {out / 'sample.txt'}:" in printed
    first = next(line for line in written[4:].splitlines() if line.strip())
    assert first in printed
    assert len(written) == 4 + SAMPLE_TOKENS + 1
    figures = json.loads((out / "run.json").read_text())["metrics"]
    assert set(figures) == {"loss", "bits_per_character", "perplexity", "token_accuracy"}
    assert figures["bits_per_character"]["direction"] == "min"


def test_the_vocabulary_travels_with_the_net(trained):
    net = localearn.load_net(trained)
    written = localearn.generate(net, "ab", length=30, seed=3)
    assert len(written) == 32 and written.startswith("ab") and set(written) <= set("abc \n")
    assert (
        written == localearn.generate(net, "ab", length=30, seed=3) != localearn.generate(net, "ab", length=30, seed=4)
    )
    assert net.task == localearn.LanguageModelling(5)


def test_the_command_prints_what_python_gives(trained, capsys):
    assert sample.main([str(trained), "prompt=ab", "length=20", "temperature=0", "seed=1"]) == 0
    expected = localearn.generate(localearn.load_net(trained), "ab", length=20, temperature=0)
    assert capsys.readouterr().out == expected + "\n"


def test_a_vocabulary_of_a_strangers_moves_no_cursor(trained, tmp_path, capsys):
    net = load_file(trained / "net.safetensors")
    with safe_open(trained / "net.safetensors", "pt") as file:
        described = json.loads(file.metadata()["localearn"])
    del described["sha256"]
    described["codec"]["characters"] = "\t\n\x1ba\x9b"
    save_file(net, tmp_path / "net.safetensors", {"localearn": json.dumps(described)})
    assert sample.main([str(tmp_path), "prompt=\t\x1ba", "length=200", "temperature=3"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("\t\\x1ba") and set(printed) <= set("\t\n\\x1b9ba")
    assert {"\t", "\n", "\\"} <= set(printed[4:])


def test_a_net_whose_outputs_are_not_finite_writes_nothing(trained):
    net = localearn.load_net(trained)
    with torch.no_grad():
        next(net.readout.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="outputs are not finite"):
        localearn.generate(net, "ab")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prompt=x"], "the vocabulary has no 'x'"),
        (["prompt="], "a prompt has one token at least"),
        (["temperature=-1"], "temperature takes numbers of 0 or more"),
        (["length=-1"], "length takes whole numbers of 0 or more"),
        (["lenght=3"], "unknown argument 'lenght=3'; did you mean 'length'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(trained, arguments, message):
    with pytest.raises(UserError, match=message):
        sample.main([str(trained), *arguments])


def test_a_net_that_is_no_language_model_is_refused():
    with pytest.raises(
        UserError, match="this MLP brings no vocabulary, so it continues no text; train one by dataset=text"
    ):
        localearn.generate(localearn.MLP(4, 2))
    with pytest.raises(UserError, match="name one run's folder"):
        sample.main(["prompt=a"])
