"""Files that name code of their own run none of it, whoever reads them."""

import ast
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from localearn import trust
from localearn.cli import compare, compose, export, run, study
from localearn.errors import UserError
from localearn.nets import MLP
from localearn.training.loading import load_net, resumed

TARGETS = [
    "evil.Rule", "os.system", "subprocess.check_call", "localearn.fit", "localearn.cli.compose", "builtins.exec",
    "torch.optim.lr_scheduler.warnings.warn", "torch.load", "torch.hub.load", 7, None, ["os", "system"],
]  # fmt: skip
TINY = ["dataset.train_size=60", "epochs=2", "progress=false", "energy.enabled=false", "net.widths=[8]"]


@pytest.fixture
def evil(monkeypatch, tmp_path):
    """Put a module that leaves a mark when it is imported where every command would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(
        "import pathlib\npathlib.Path('canary').write_text('')\nfrom localearn import MonoForward as Rule, MLP as Net\n"
    )
    yield tmp_path
    import sys

    sys.modules.pop("evil", None)


def in_config(text):
    """Replace something in a run's config.yaml by what a stranger might write there."""
    return lambda config: config.write_text(config.read_text().replace(*text, 1))


CONFIGS = {
    "top": ("_target_: localearn.MonoForward", "_target_: evil.Rule"),
    "nested": ("activation: relu", "activation: {_target_: evil.Rule}"),
    "in a callback": ("callbacks: []", "callbacks: [{_target_: evil.Rule}]"),
    "in a list": ("- 8", "- {_target_: evil.Rule}"),
    "in a data set": ("_target_: localearn.load", "_target_: evil.Rule"),
    "by interpolation": ("_target_: localearn.MonoForward", "_target_: ${protocol}"),
    "by a resolver": ("protocol: null", "protocol: ${oc.env:HOME}"),
    "by an import of Hydra's": ("activation: relu", "activation: {_target_: hydra.utils.get_method, path: evil.Rule}"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_run_that_is_resumed_runs_no_code_of_its_configuration(kind, evil, capsys):
    assert run.main([*TINY, "out=run"]) == 0
    config = Path("run/config.yaml")
    text = config.read_text()
    before, after = CONFIGS[kind]
    assert before in text
    text = text.replace(before, after, 1)
    config.write_text(text.replace("protocol: null", "protocol: evil.Rule") if kind == "by interpolation" else text)
    Path("run/run.json").unlink()
    with pytest.raises(UserError, match=r"config\.yaml: .*(trust=|calls nothing)"):
        run.main(["resume=run"])
    assert not Path("canary").exists()


def test_a_users_own_word_lets_a_folder_name_a_class(evil):
    assert run.main([*TINY, "algo._target_=evil.Rule", "out=run"]) == 0
    Path("run/run.json").unlink()
    with pytest.raises(UserError, match=r"trust=evil\.Rule"):
        run.main(["resume=run"])
    for word in ("trust=evil.Rule", "trust=[evil.Rule]", "algo._target_=evil.Rule"):
        resumed("run", [word])
    assert run.main(["resume=run", "trust=evil.Rule"]) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_a_net_is_never_built_by_a_strangers_class(target, evil):
    assert run.main([*TINY, "out=run"]) == 0
    path = Path("run/net.safetensors")
    for options in ({"_target_": target}, {"_target_": "localearn.MLP", "widths": [{"_target_": target}]}):
        described = {"input_shape": [1, 8, 8], "classes": 10, "net": options}
        save_file(load_file(path), path, metadata={"localearn": json.dumps(described)})
        for reader in (load_net, lambda folder: export.main([str(folder)])):
            with pytest.raises(UserError, match="_target_"):
                reader(Path("run"))
    assert not Path("canary").exists()


LARGER = {
    "wide": {"net": {"_target_": "localearn.MLP", "widths": [10**6, 10**6]}},
    "deep": {"net": {"_target_": "localearn.MLP", "widths": [8] * 10**5}},
    "layers": {"net": {"_target_": "localearn.Transformer", "width": 8, "depth": 10**8}, "input_shape": [8, 8]},
    "classes": {"classes": 2**31 - 1},
    "pixels": {"input_shape": [2**30]},
    "rows": {"input_shape": [1, 2**14, 2**14]},
}


@pytest.mark.parametrize("case", LARGER)
def test_a_net_is_as_large_as_the_tensors_that_its_file_holds(case, tmp_path):
    net = MLP((1, 8, 8), 10, widths=(8,))
    own = {"input_shape": [1, 8, 8], "classes": 10, "net": {"_target_": "localearn.MLP", "widths": [8]}}
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path, metadata={"localearn": json.dumps(own)})
    assert load_net(tmp_path).widths == (8,)
    save_file(net.state_dict(), path, metadata={"localearn": json.dumps({**own, **LARGER[case]})})
    with pytest.raises(UserError, match=r"net\.safetensors: "):  # and not that the memory was full
        load_net(tmp_path)


def test_export_builds_no_rule_of_a_strangers_record(evil, capsys):
    assert run.main([*TINY, "out=run"]) == 0
    record = json.loads(Path("run/run.json").read_text())
    record["config"]["algo"]["_target_"] = "evil.Rule"
    Path("run/run.json").write_text(json.dumps(record))
    assert export.main(["run"]) == 0
    assert "trust=evil.Rule" in capsys.readouterr().out
    assert not Path("canary").exists()


OVERRIDES = [
    "algo._target_=evil.Rule", "+algo.x={_target_: evil.Rule}", "net.widths=[{_target_: evil.Rule}]",
    "callbacks=[{_target_: evil.Rule}]", "callbacks.0._target_=evil.Rule",
    "algo._target_='evil.Rule'", "algo._target_=${net.activation}", "out=${oc.env:HOME}", "hydra/launcher=joblib",
    "+hydra.callbacks.a._target_=evil.Rule", "hydra.run.dir=x", "trust=evil.Rule", "config=other.yaml", "resume=run",
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_file_of_overrides_runs_no_code(override, evil):
    body = "overrides:\n  - " + json.dumps(override) + "\n"
    Path("best.yaml").write_text(body)
    Path("tuned/mono_forward").mkdir(parents=True)
    Path("tuned/mono_forward/best.yaml").write_text(body)
    Path("rows").mkdir()
    row = {"title": "t", "source": "s", "run": ["algo=mono_forward", override]}
    Path("rows/a.yaml").write_text(json.dumps(row))
    readers = (
        lambda: run.main(["config=best.yaml", *TINY]),
        lambda: compose(["config=best.yaml"]),
        lambda: compare.main(["algos=[mono_forward]", "tuned=tuned", "out=compared"]),
        lambda: study.main(["rows"]),
    )
    for reader in readers:
        with pytest.raises(UserError, match=r"\.yaml: "):
            reader()
    assert not Path("canary").exists()


def test_overrides_that_name_nothing_foreign_are_taken(evil):
    Path("best.yaml").write_text("overrides: [algo=backprop, optim.lr=0.01, 'net.widths=[8]']\n")
    config, _ = compose(["config=best.yaml"])
    assert config.optim.lr == 0.01
    Path("own.yaml").write_text("overrides: [algo._target_=evil.Rule]\n")
    config, _ = compose(["config=own.yaml", "trust=evil.Rule"])
    assert config.algo._target_ == "evil.Rule"


def test_what_a_config_dir_imports_is_told(evil, capsys):
    Path("mine/algo").mkdir(parents=True)
    Path("mine/algo/own.yaml").write_text("# @package _global_\nalgo:\n  _target_: evil.Rule\n")
    compose(["algo=own"], "mine")
    assert "algo._target_ imports evil.Rule" in capsys.readouterr().err


def test_every_shipped_configuration_names_known_classes():
    from omegaconf import OmegaConf

    from localearn.training.building import CONF

    for path in sorted(CONF.rglob("*.yaml")):
        trust.check_tree(path, OmegaConf.to_container(OmegaConf.load(path)))


@pytest.mark.parametrize("name", sorted(trust.OWN))
def test_every_known_class_is_there(name):
    from localearn.training.building import locate

    assert callable(locate("x", name))


READS = {
    "load", "loads", "safe_load", "unsafe_load", "read_yaml", "read_json", "read_record", "safe_open", "load_file",
    "import_module", "__import__", "locate", "instantiate", "loadtxt", "fromfile", "memmap", "Unpickler", "_Unpickler",
    "read_pickle", "extractall", "unpack_archive", "exec",
}  # fmt: skip
# Where localearn reads what may be somebody else's, or imports by name, and what keeps that from running code.
READERS = {
    "analysing/reading.py": {"read_record"},  # load_rule builds the rule: check_tree
    "benching/parallel.py": {"json.loads"},  # of this run's own temporary folder
    "benching/rank.py": {"json.loads"},  # of that run's own temporary folder
    "cli/listing.py": {"read_yaml"},  # of --config-dir, shown and no more; a rule of localearn's alone is built
    "cli/commands.py": {"importlib.import_module"},  # of its own table
    "cli/options.py": {"read_yaml"},  # config.yaml
    "cli/study.py": {"read_record", "read_yaml"},  # check_overrides
    "composition.py": {
        "read_yaml",  # config=FILE: check_overrides
        "OmegaConf.load",  # shipped files, for a suggestion
        "locate",  # of a configuration that was composed, and so checked
    },
    "data/files.py": {"np.load"},  # allow_pickle=False
    "data/embedded.py": {"np.loadtxt"},  # of scikit-learn's own files
    "data/planetoid.py": {"_Unpickler", "_Unpickler(file, encoding='latin1').load"},  # an allowlist of types
    "data/tokens.py": {"json.loads"},  # a tokenizer's state, looked through for what the library shall not be given
    "defaults.py": {"importlib.import_module", "yaml.safe_load"},  # of localearn's own files, and what they name
    "energy/codecarbon.py": {"json.loads"},  # of codecarbon's own files
    "testing/energy.py": {"json.loads"},
    "energy/nvml.py": {"importlib.import_module"},  # pynvml
    "extras.py": {"importlib.import_module"},  # names in localearn's own code, torch_geometric's among them
    "exporting.py": {"read_record", "torch.export.load"},  # check_tree; the file that it has just written
    "files.py": {"json.loads"},
    "recipes.py": {"read_yaml"},  # of --config-dir, whose recipes Hydra composes; nothing is built of what is read
    "moved.py": {"importlib.import_module"},  # of the names in its own table
    "grid.py": {"read_json"},  # its own state: the seconds and status of each cell
    "jobs.py": {"read_yaml"},  # compared, and then read by resumed
    "nets/weights.py": {"load"},  # of safetensors, which holds no code
    "records/folder.py": {"json.loads", "read_json", "torch.load"},  # weights_only=True
    "records/reading.py": {"json.loads", "read_json"},  # what is not of the declared kind is refused
    "registry.py": {"importlib.import_module"},  # of its own tables, and of localearn's own files in conf/algo
    "reporting/writing.py": {"read_json"},
    "training/building.py": {"OmegaConf.load", "importlib.import_module", "locate"},  # what checked trees name
    "training/experiment.py": {"OmegaConf.load"},  # of localearn's own files
    "training/fit.py": {"json.loads"},  # of what it has written itself
    "training/loading.py": {
        "json.loads",
        "locate",
        "read_record",  # its fingerprint alone
        "read_yaml",
        "safe_open",
    },  # check_tree
    "training/resume.py": {"loop.load"},  # checked by training/checkpoint.py
    "training/distributed/launch.py": {"json.loads"},  # of other ranks
    "tuning/recovery.py": {
        "read_json",  # what is not of its kind is left out
        "read_record",
        "read_yaml",  # values of the search's space alone
    },
    "tuning/search.py": {"json.loads"},  # of Optuna's own text
    "tuning/storage.py": {"json.loads"},  # whether a journal's lines are JSON
    "tuning/trial.py": {"read_record"},  # of a trial's own folder
}


def test_every_reader_is_listed_with_what_keeps_it_safe():
    root = Path(trust.__file__).parent
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if name in READS:
                found.setdefault(path.relative_to(root).as_posix(), set()).add(ast.unparse(node.func))
                options = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                if ast.unparse(node.func) == "torch.load":
                    assert options.get("weights_only") is True, path
                if ast.unparse(node.func) == "np.load":
                    assert options.get("allow_pickle") is False, path
    assert found == READERS, "a reader came or went: say here what keeps it from running a stranger's code, and try it"


@pytest.mark.parametrize("line", [
    'recipes={dense:["callbacks=[{_target_:os.system,command:true}]"]}',
    'recipes.dense=["algo._target_=evil.R"]',
    '+recipes.mine=["optim._target_=evil.R"]',
    "refused={MLP:no}",
])  # fmt: skip
def test_a_recipes_lines_are_not_taken_from_a_file(line):
    with pytest.raises(UserError, match="is for the command line, and is not taken from a file"):
        trust.check_overrides("best.yaml", [line])
