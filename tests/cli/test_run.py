"""The first door: what it prints, what it refuses, and that a wrong word never costs more than a line."""

import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localearn import cli
from localearn.cli import run
from localearn.cli.errors import run_command
from localearn.errors import UserError
from localearn.training.callbacks import Callback, attached

RULES = """\
import localearn
from localearn.trainers.base import cross_entropy

class MyRule(localearn.Trainer):
    def __init__(self, net, strength: float = 1.0, anything=None):
        super().__init__(net)
        self.strength = strength

    def gradients(self, batch):
        loss = cross_entropy(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach(), "never_finite": loss.detach() / 0}

class Needy(MyRule):
    def __init__(self, net, k: int):
        super().__init__(net)

class Broken(MyRule):
    def __init__(self, net):
        raise LookupError("a bug of its author")

class BreaksLater(MyRule):
    def gradients(self, batch):
        raise LookupError("a bug of its author")

class Foreign:
    pass

def net(input_shape, classes):
    return 3
"""

# What is wrong on the command line, and words that its error must have.
WRONG_NAMES = {
    "algo=mono_forwad": ["no algo 'mono_forwad'", "'mono_forward'"],
    "dataset=minst": ["no dataset 'minst'", "'mnist'"],
    "net=mpl": ["no net 'mpl'", "'mlp'"],
    "optim=adm": ["no optim 'adm'", "'adam'"],
    "schedule=cosin": ["no schedule 'cosin'", "'cosine'"],
    "epoch=3": ["no key 'epoch'", "'epochs'"],
    "optim.lrr=3": ["no key 'optim.lrr'", "'optim.lr'"],
    "algo.projection=true": ["no key 'algo.projection' with algo=mono_forward; did you mean 'algo.prediction'?"],
    "algo.tangents=3": ["no key 'algo.tangents' with algo=mono_forward; forward_gradient has it"],
    "net.bias=false": ["no key 'net.bias' with net=mlp_2x256", "+net.bias=VALUE adds it"],
    "+foo=1": ["no key 'foo'"],
    "+energy.idle=1": ["no key 'energy.idle'", "'idle_s'"],
    "+optim.momentun=1": ["Adam has no option optim.momentun"],
    "+net.widht=1": ["MLP has no option net.widht", "'widths'"],
    "+algo.predicton=bp": ["MonoForward has no option algo.predicton", "'prediction'"],
    "+dataset.test_fractoin=0.1": ["load has no option dataset.test_fractoin", "'test_fraction'"],
    "dataset.name=foo": ["unknown data set 'foo'"],
    "net.activation=rleu": ["no activation 'rleu'", "'relu'"],
    "net.norm=bacth": ["no norm 'bacth'", "'batch'"],
    "algo.prediction=xx": ["algo.prediction must be bp or ff, not 'xx'"],
    "algo.schedule=greedyy": ["algo.schedule must be joint or greedy", "'greedy'"],
    "precision=fp8": ["precision must be fp32 or bf16, not 'fp8'"],
    "monitor=val_acc": ["monitor must be val_accuracy or val_loss", "'val_accuracy'"],
    "log=tensorbord": ["log must be none, tensorboard, csv, mlflow or wandb", "'tensorboard'"],
    "protocol=fair": ["protocol must be matched or converged or null"],
    "device=foo": ["device is auto, cpu, cuda (or cuda:1) or mps, not 'foo'"],
    "device=meta": ["device is auto, cpu, cuda (or cuda:1) or mps, not 'meta'"],
    "device=cuda:77": ["device=cuda:77 is not available"],
    "energy.country=XXX": ["energy.country='XXX'", "alpha-3"],
    "energy.country=Poland": ["'POL'"],
    "dataset.augment=flip": ["dataset.augment must be none, crop or crop_flip", "'crop_flip'"],
    "algo._target_=nonexistent.Rule": ["no module 'nonexistent'"],
    "algo._target_=MyRule": ["must name a class with its module"],
    "algo._target_=localearn.MonoForwad": ["localearn has no 'MonoForwad'", "'MonoForward'"],
    "optim._target_=torch.optim.Adm": ["torch.optim has no 'Adm'", "'Adam'"],
    "optim._target_=torch.nn.Linear": ["Linear has no option optim.lr"],
    "net._target_=os.getcwd": ["os.getcwd must take input_shape and classes", "it takes nothing"],
}
WRONG_VALUES = {
    "epochs=abc": ["epochs must be a whole number, not 'abc'"],
    "epochs=0": ["epochs must be 1 or more, not 0"],
    "epochs=1.5": ["epochs must be a whole number, not 1.5"],
    "epochs=true": ["epochs must be a whole number, not true"],
    "epochs=": ["epochs must be a whole number, not ''"],
    "epochs=null": ["epochs must be a whole number, not null"],
    "epochs=[1]": ["epochs must be a whole number, not [1]"],
    "batch_size=-1": ["batch_size must be 1 or more, not -1"],
    "eval_batch_size=0": ["eval_batch_size must be 1 or more"],
    "seed=-1": ["seed must lie in [0, 2^63), not -1"],
    "seed=abc": ["seed must be a whole number"],
    "seed=" + 400 * "9": ["seed must lie in"],
    "energy.idle_s=" + 400 * "9": ["energy.idle_s must be a number"],
    "seed=1.0": ["seed must be a whole number"],
    "seed=99999999999999999999": ["seed must lie in"],
    "device=0": ["device must be text, not 0"],
    "patience=0": ["patience must be 1 or more"],
    "patience=abc": ["patience must be a whole number or null"],
    "min_delta=-1": ["min_delta must be 0 or more"],
    "min_delta=abc": ["min_delta must be a number"],
    "min_delta=nan": ["min_delta must be a number"],
    "clip_norm=-1": ["clip_norm must be positive"],
    "clip_norm=0": ["clip_norm must be positive"],
    "clip_norm=inf": ["clip_norm must be a number or null"],
    "restore_best=3": ["restore_best must be true or false"],
    "deterministic=5": ["deterministic must be true or false"],
    "progress=foo": ["progress must be true or false"],
    "debug=foo": ["debug must be true or false"],
    "feature_cache_bytes=1e9": ["feature_cache_bytes must be a whole number"],
    "feature_cache_bytes=-1": ["feature_cache_bytes must be 0 or more"],
    "energy.enabled=maybe": ["energy.enabled must be true or false"],
    "energy.idle_s=-1": ["idle_s must be 0 or more"],
    "energy.idle_s=abc": ["energy.idle_s must be a number"],
    "energy.country=5": ["energy.country must be text or null"],
    "energy=5": ["energy must be a group"],
    "optim.lr=abc": ["optim.lr must be a number, not 'abc'"],
    "optim.lr=-1": ["optim: Invalid learning rate: -1"],
    "optim.lr=null": ["optim.lr must be a number, not null"],
    "optim.lr=nan": ["optim.lr must be a number"],
    "optim.betas=0.9": ["optim.betas must be a list of 2"],
    "optim.betas=[0.9,2]": ["optim: Invalid beta parameter"],
    "optim=sgd optim.momentum=-1": ["optim: Invalid momentum"],
    "optim=sgd optim.nesterov=true optim.momentum=0": ["optim: Nesterov"],
    "schedule=step schedule.milestones=5": ["schedule.milestones must be a list of whole numbers"],
    "schedule=step schedule.milestones=[a]": ["schedule.milestones must be a list of whole numbers"],
    "schedule=step schedule.gamma=abc": ["schedule.gamma must be a number"],
    "schedule=cosine schedule.T_max=0": ["schedule: ", " by zero"],
    "schedule=plateau schedule.factor=2": ["schedule: Factor should be < 1.0"],
    "net.widths=[]": ["widths must be a list of positive whole numbers"],
    "net.widths=[0]": ["widths must be a list of positive whole numbers"],
    "net.widths=abc": ["net.widths must be a list of whole numbers, not 'abc'"],
    "net.dropout=1.0": ["dropout must lie in [0, 1)"],
    "net.dropout=abc": ["net.dropout must be a number"],
    "algo=forward_gradient algo.tangents=0": ["tangents must be 1 or more"],
    "algo=forward_gradient algo.tangents=abc": ["algo.tangents must be a whole number"],
    "dataset.train_size=0": ["train_size is 0"],
    "dataset.train_size=abc": ["dataset.train_size must be a whole number or null"],
    "dataset.val_fraction=1": ["val_fraction is 1"],
    "dataset.normalize=rows": ["normalize=rows belongs to graphs"],
    "net.norm=batch batch_size=1": ["batch normalisation needs 2 rows"],
    "epochs=${nothing}": ["epochs: Interpolation key 'nothing' not found"],
    "epochs=???": ["epochs: Missing mandatory value"],
}
WRONG_WORDS = {
    "~": ["cannot read '~'"],
    "+epochs=3": ["+epochs adds a key, and epochs is there; say epochs=VALUE"],
    "resume=''": ["resume= has no value"],
    "--config-dir=": ["--config-dir needs a value"],
    "-m seed=range(3,0)": ["seed=range(3,0) has no value"],
    "country=POL": ["no key 'country'; did you mean 'energy.country'?"],
    "optim.foreach=true": ["+optim.foreach=VALUE adds it"],
    "recipes.dense=5": ["recipes.dense must be a list of overrides"],
    "about=null": ["about describes a rule in its own file"],
    "about.class=x": ["about describes a rule in its own file"],
    "recipes=5": ["recipes must be lists of overrides by name"],
    "net.widths={a:1}": ["net.widths={a:1}: "],
    "epochs": ["cannot read 'epochs'", "key=value"],
    "epochs='1": ['cannot read "epochs=\'1"'],
    "=5": ["cannot read '=5'; write key=value"],
    "out=": ["out= has no value"],
    "epochs=1,2": ["epochs=1,2 is several values", "-m"],
    "algo=null": ["a group takes the name of one of its choices"],
    "algo=[backprop,mono_forward]": ["algo must be one of its choices"],
    "~algo": ["algo must be one of its choices"],
    "~optim": ["no 'optim', which every run needs"],
    "~epochs": ["no 'epochs', which every run needs"],
    "~net._target_": ["net._target_ must name a class"],
    "~dataset.name": ["dataset.name is missing"],
    "resume=": ["resume= has no value"],
    "resume=nope": ["resume=nope: there is no such folder"],
    "resume=. optim.lr=0.1": ["leave out optim.lr=0.1"],
    "resume=. -m": ["leave out -m"],
    "--seed=3": ["no flag '--seed'", "seed=VALUE"],
    "-x": ["no flag '-x'"],
    "--": ["no flag '--'", "keys have no dashes: key=VALUE"],
    "--cfg": ["--cfg takes job or hydra or all"],
    "--resolve": ["--resolve goes with --cfg job"],
    "-m --cfg job seed=0,1": ["--cfg shows the configuration of one run; leave out -m"],
    "--cfg job epoch=3": ["no key 'epoch'", "'epochs'"],
    "--config-dir": ["--config-dir needs a value"],
    "--config-dir nope": ["--config-dir nope: there is no such folder"],
}
MISFITS = {
    "dataset=karate net=mlp": ["karate is graph data", "use net=gcn"],
    "dataset=karate net=cnn": ["a CNN takes images"],
    "dataset=digits net=gcn": ["a GNN takes a graph's nodes"],
    "dataset=digits net=cnn": ["leaves nothing of a side of 8"],
    "dataset=npz dataset.path=vectors.npz net=cnn": ["a CNN takes images", "(5,)", "net=mlp"],
    "dataset=npz": ["npz needs a path"],
    "dataset=npz dataset.path=nope.npz": ["nope.npz does not exist"],
    "dataset=npz dataset.path=C:\\data\\x.npz": ["error: C:\\data\\x.npz does not exist"],
    "out=a\0b": ["null byte"],
    "dataset=npz dataset.path=my_rules.py": ["my_rules.py cannot be read as an npz archive"],
    "dataset=mnist dataset.data_dir=nowhere": ["mnist", "nowhere/mnist.npz"],
    "dataset=imagefolder dataset.path=nope": ["nope does not exist"],
    "algo._target_=my_rules.MyRul": ["my_rules has no 'MyRul'", "'MyRule'"],
    "algo._target_=my_rules.Foreign": ["is not a localearn.Trainer"],
    "algo._target_=my_rules.net": ["is not a localearn.Trainer"],
    "algo._target_=my_rules.Needy": ["algo.k is missing"],
    "algo._target_=my_rules.MyRule algo.prediction=ff": ["MyRule has no option algo.prediction"],
    "algo._target_=my_rules.MyRule +algo.strength=abc": ["algo.strength must be a number"],
    "algo._target_=localearn.Trainer": ["is abstract; a subclass must define gradients"],
    "algo._target_=bad_syntax.Rule": ["bad_syntax.py, line 2"],
    "algo._target_=bad_import.Rule": ["importing bad_import failed", "no_such_package"],
    "algo._target_=bad_luck.Rule": ["importing bad_luck failed: ZeroDivisionError", "debug=true"],
    "net._target_=my_rules.net ~net.widths ~net.activation ~net.norm ~net.dropout ~net.init": [
        "returns int, not a localearn.Net"
    ],
    "--config-dir conf algo=typo": ["MyRule has no option algo.strenght", "'strength'"],
    "--config-dir conf algo=damaged": ["damaged.yaml, line 2"],
    "out=my_rules.py": ["out=my_rules.py is no folder; name a new one"],
    "out=my_rules.py/run": ["cannot write my_rules.py/run: Not a directory"],
    "out=/proc/run": ["cannot write /proc/run"],
    f"out={'x' * 300}": ["File name too long"],
}
TABLES = {**WRONG_NAMES, **WRONG_VALUES, **WRONG_WORDS, **MISFITS}


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """Give the folder of the test a user's own rules, data and configuration."""
    (tmp_path / "my_rules.py").write_text(RULES)
    (tmp_path / "bad_syntax.py").write_text("\ndef f(:\n")
    (tmp_path / "bad_import.py").write_text("import no_such_package\n")
    (tmp_path / "bad_luck.py").write_text("1 / 0\n")
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    own = "# @package _global_\n# A rule of my own\nalgo:\n  _target_: my_rules.MyRule\n"
    (tmp_path / "conf" / "algo" / "own.yaml").write_text(f"{own}  strength: 2.0\n")
    (tmp_path / "conf" / "algo" / "typo.yaml").write_text(f"{own}  strenght: 2.0\n")
    (tmp_path / "conf" / "algo" / "damaged.yaml").write_text("algo: [\n")
    x, y = np.arange(300, dtype=np.float32).reshape(60, 5), np.arange(60) % 3
    np.savez(tmp_path / "vectors.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_rules", "bad_syntax", "bad_import", "bad_luck"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("line", TABLES)
def test_a_wrong_line_is_told_in_a_line_or_two_and_leaves_nothing(line, door, own_files, no_network):
    before = sorted(own_files.rglob("*"))
    ended = door(*line.split(" "))
    assert ended.status == 2, ended
    told_first = [
        line for line in ended.err.splitlines() if not line.startswith("--config-dir conf: algo._target_ imports")
    ]
    assert told_first[0].startswith("error: ")
    assert 1 <= len(ended.err.splitlines()) <= 2, ended.err
    assert "Traceback" not in ended.err
    for words in TABLES[line]:
        assert words in ended.err
    after = [path for path in sorted(own_files.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


def test_debug_shows_the_traceback_of_what_is_told(door):
    assert "Traceback" not in door("epochs=0").err
    ended = door("epochs=0", "debug=true")
    assert ended.status == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1] == "error: epochs must be 1 or more, not 0"


def test_what_is_odd_but_right_is_taken(tiny, read):
    for out in ("o b", "Größe ☃", "it's #1 ~ (a)", "x=y,z"):
        assert tiny("epochs=1", f"out={out}").status == 0
        assert read.record(out)["config"]["out"] == out
    assert tiny("epochs=7", "epochs=1", "out='quoted'").status == 0
    assert read.record("quoted")["epochs"] == 1
    assert tiny("epochs=1", "net.widths=[${batch_size},8]", "batch_size=20", "out=made").status == 0
    assert read.record("made")["config"]["net"]["widths"] == [20, 8]


OWN = """\
import localearn

def data(rows: int = 64):
    return localearn.load("digits", train_size=rows)

class Net(localearn.MLP):
    def __init__(self, input_shape, classes, wide: int = 8):
        super().__init__(input_shape, classes, widths=(wide,))

class Rule(localearn.MonoForward):
    def __init__(self, net, strength: float = 1.0):
        super().__init__(net)
        self.strength = strength
"""


@pytest.mark.parametrize(
    ("target", "options", "rest"),
    [
        ("dataset", ["dataset.rows=32"], {"rows": 32}),
        ("net", ["net.wide=4", "dataset.train_size=64"], {"wide": 4, "group": 1}),
        ("optim", ["optim._target_=torch.optim.SGD", "optim.momentum=0.5"], {"lr": 0.001, "momentum": 0.5}),
        ("algo", ["algo.strength=2.0", "dataset.train_size=64"], {"strength": 2.0}),
    ],
)
def test_a_target_on_the_command_line_has_its_own_options(door, read, tmp_path, monkeypatch, target, options, rest):
    (tmp_path / "targets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "targets", raising=False)
    own = {"dataset": ["targets.data"], "net": ["targets.Net"], "algo": ["targets.Rule"]}.get(target, [])
    chosen = [f"{target}._target_={name}" for name in own]
    ended = door(*chosen, *options, "epochs=1", "progress=false", "energy.enabled=false", "out=run")
    assert ended.status == 0, ended.err
    recorded = read.record("run")["config"][target]
    assert recorded.items() >= rest.items()
    assert not {"name", "widths", "betas"} & set(recorded)


def test_a_sweep_has_folders_by_what_differs_or_by_hydras_own_option(tiny, read):
    sweep = ("-m", "epochs=1", "seed=3,4")
    assert tiny(*sweep, "out=named ${seed}").status == 0
    assert tiny(*sweep, "hydra.sweep.dir=by hydra", "hydra.sweep.subdir=${hydra:job.num}").status == 0
    for seed, folders in {3: ("named 3", "by hydra/0"), 4: ("named 4", "by hydra/1")}.items():
        assert [read.record(folder)["seed"] for folder in folders] == [seed, seed]
    assert tiny(*sweep, "hydra.sweep.dir=kept").status == 0
    assert len(list(Path("kept").glob("*-mono_forward-digits-[34]/run.json"))) == 2
    ended = tiny(*sweep, "out=one")
    assert ended.status == 2
    assert "'out=one-${seed}', or by hydra.sweep.dir=one" in ended.err
    ended = tiny("epochs=1", "out=x-${hydra:job.num}")
    assert ended.status == 2
    assert "-m" in ended.err


def test_each_run_has_a_folder_of_its_own_that_says_what_it_is(tiny):
    for _ in range(2):
        assert tiny("epochs=1", "seed=5").status == 0
    names = sorted(path.name for path in Path("runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{8}-\d{6}-mono_forward-digits-5(-2)?", name) for name in names)


def test_a_rule_of_ones_own_by_its_module_or_its_yaml(tiny, own_files, read):
    assert tiny("algo._target_=my_rules.MyRule", "+algo.strength=3", "out=by_module").status == 0
    record = read.record("by_module")
    assert record["rule"] == "my_rules.MyRule"
    assert record["config"]["algo"]["strength"] == 3
    assert all(line["never_finite"] is None for line in read.history("by_module"))  # JSON has no infinity
    assert tiny("--config-dir", "conf", "algo=own", "out=by_yaml").status == 0
    assert read.record("by_yaml")["algo"] == "own"
    assert read.record("by_yaml")["config"]["algo"] == {"_target_": "my_rules.MyRule", "strength": 2.0}


@pytest.mark.parametrize(("rule", "left"), [("Broken", False), ("BreaksLater", True)])
def test_a_bug_keeps_its_traceback_and_its_record(rule, left, tiny, own_files, read):
    with pytest.raises(LookupError, match="a bug of its author"):
        tiny(f"algo._target_=my_rules.{rule}", "out=run")
    assert Path("run").exists() == left
    if left:
        record = read.record("run")
        assert record["status"] == "failed"
        assert record["error"] == "LookupError: a bug of its author"
        assert record["test_accuracy"] is None


def test_a_sweep_runs_what_it_can_and_tells_what_it_cannot(tiny, own_files):
    ended = tiny("-m", "--config-dir", "conf", "algo=backprop,typo,own", "seed=1,2", "epochs=1")
    assert ended.status == 2
    assert ended.err.count("error: MyRule has no option algo.strenght") == 2
    assert ended.out.count("test accuracy") == 4
    runs = sorted(path.parent.name for path in Path("runs").glob("*/run.json"))
    assert [name.split("-", 2)[2] for name in runs].count("own-digits-2") == 1
    assert not Path("multirun.yaml").exists()
    assert logging.getLogger("localearn.energy.meter").isEnabledFor(logging.WARNING), "a sweep's runs are heard"


def test_a_sweep_with_a_wrong_name_runs_nothing(door):
    ended = door("algo=mono_forward,mno", "-m", "seed=1")
    assert ended.status == 2
    assert ended.err.startswith("error: no algo 'mno'")
    assert not list(Path("runs").glob("*/run.json"))


class Interrupts(Callback):
    """Has Ctrl-C come at the first step."""

    def step_ended(self, context):
        signal.raise_signal(signal.SIGINT)


def test_a_sweep_ends_where_it_is_interrupted(tiny):
    with pytest.raises(SystemExit) as ended, attached(Interrupts()):
        tiny("-m", "seed=1,2,3")
    assert ended.value.code == 130
    assert len(list(Path("runs").glob("*/run.json"))) == 1


def test_help_has_a_line_on_every_choice(door, own_files):
    page = door("--help").out
    for group in cli.GROUPS:
        for path in (cli.CONF / group).glob("*.yaml"):
            line = next(line for line in page.splitlines() if line.strip().startswith(f"{path.stem} "))
            assert len(line.split()) >= 2, f"{group}/{path.name} has no line on itself"
    assert "A rule of my own" in door("--config-dir", "conf", "-h").out


def test_cfg_job_shows_what_would_run_and_runs_nothing(door):
    shown = door("--cfg", "job", "epochs=7", "algo=backprop")
    assert shown.status == 0
    assert "epochs: 7" in shown.out
    assert "_target_: localearn.Backprop" in shown.out
    assert not Path("runs").exists()


def test_a_reader_that_left_is_no_error(process):
    with process("-h") as started:
        started.stdout.close()
        assert started.wait(timeout=120) == 141
        assert started.stderr.read() == ""


def test_ctrl_c_before_there_is_a_run_is_130(capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    assert run_command(interrupted, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_module_is_a_command(process):
    started = process("epochs=1", "dataset.train_size=50", "net.widths=[8]", "energy.enabled=false", "out=run")
    out, err = started.communicate(timeout=120)
    assert started.returncode == 0, err
    assert err == ""
    assert re.search(r"epoch 1/1 .* done\nmono_forward on digits: test accuracy [\d.]+ %, .* energy absent; run\n", out)


def test_a_graph_net_prints_no_warning_of_a_package(process):
    started = process("dataset=karate", "epochs=1", "progress=false", "energy.enabled=false")
    _, err = started.communicate(timeout=120)
    assert started.returncode == 0
    assert err == ""


def test_hydra_is_asked_only_where_its_flags_are(monkeypatch, door):
    monkeypatch.setattr(run, "_through_hydra", lambda arguments, config_dir: 42)
    assert door("-m", "seed=1,2").status == 42
    assert door("epochs=0").status == 2


@pytest.mark.parametrize("thread", [False, True])
def test_leaving_early_loses_nothing(thread):
    """What was printed, what atexit was to do and what a thread is at are all there in the end."""
    code = (
        "import atexit, sys, threading, time\n"
        "from localearn.cli.errors import leave\n"
        "atexit.register(lambda: print('at exit'))\n"
        f"if {thread}: threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()\n"
        "sys.stdout.write('printed ')\n"
        "leave(42)\n"
    )
    command, root = [sys.executable, "-c", code], cli.CONF.parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 42
    assert done.stderr == ""
    assert set(done.stdout.split()) == {"printed", "at", "exit"} | ({"thread"} if thread else set())


HOSTILE = "a\x1b[31m\n[bold]b\u202e" + "c" * 100


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Give the folder of the test arrays whose classes, and whose names, would move the cursor; return overrides."""
    monkeypatch.chdir(tmp_path)
    x, y = np.random.RandomState(0).rand(60, 4), np.array([HOSTILE, "\x07[red]", "d" * 10_000])[np.arange(60) % 3]
    np.savez(f"{HOSTILE}.npz", x=x, y=y)
    foreign: dict[str, Any] = {f"x{HOSTILE}": x}
    np.savez("foreign.npz", **foreign)
    return ["algo=backprop", "dataset=npz", "energy.enabled=false", "epochs=1", "net=mlp", "net.widths=[4]"]


def test_a_run_of_hostile_names_prints_lines_that_show_them(hostile, capfd, tmp_path):
    arguments = [*hostile, f"dataset.path={HOSTILE}.npz", f"out=runs/{HOSTILE}"]
    assert run_command(run.main, arguments) == 0
    epoch, last = capfd.readouterr().out.splitlines()
    assert epoch.startswith("all  epoch 1/1")
    shown = r"a\x1b[31m\n[bold]b\u202e" + "c" * 100
    assert last.endswith(f"; runs/{shown}")
    assert (tmp_path / "runs" / HOSTILE / "run.json").is_file(), "the folder itself is called as it was asked for"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([f"dataset.path={HOSTILE}"], r"error: a\x1b[31m\n[bold]b\u202eccc"),
        (["dataset.path=foreign.npz"], r"error: foreign.npz lacks"),
        ([f"dataset.path={HOSTILE}.npz", f"dataset.name={HOSTILE}"], r"[31m\n[bold]b\u202eccc"),
        ([f"dataset.path={HOSTILE}.npz", f"out={'c' * 10_000}"], "error: "),
        ([f"dataset.path={HOSTILE}.npz", f"net={HOSTILE}"], "error: "),
        ([f"resume={HOSTILE}"], r"error: resume=a\x1b[31m\n[bold]"),
        ([f"--config-dir={HOSTILE}"], r"error: --config-dir a\x1b[31m\n[bold]"),
    ],
)
def test_an_error_about_a_hostile_name_is_a_line_that_shows_it(hostile, capfd, wrong, said):
    hostile = [] if wrong[0].startswith("resume") else hostile
    assert run_command(run.main, [*hostile, *wrong]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert line.isprintable()


def test_the_lines_of_an_error_are_those_that_it_was_given(capsys):
    def door(arguments):
        raise UserError("of\ntwo", "lines\x1b[0m")

    assert run_command(door, []) == 2
    assert capsys.readouterr().err == "error: of\\ntwo\nlines\\x1b[0m\n"
