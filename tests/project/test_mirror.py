"""The tests mirror localearn: nets/conv.py has nets/test_conv.py and test_conv_resnet.py, or stands in a list below."""

import ast
from pathlib import Path

import pytest

import localearn

PACKAGE = Path(localearn.__file__).parent
TESTS = Path(__file__).parents[1]

# Folders of tests of no module: of the documentation, the experiments, and the repository as a whole.
NO_MODULE = {"docs", "experiments", "project"}

# Tests of many modules of a package together, with what they are about.
TOGETHER = {
    "nets/test_published.py": "sizes of published nets, by their configurations",
    "nets/test_rules.py": "every rule on every kind of net",
    "trainers/test_conformance.py": "the suite on rules with other options",
    "trainers/test_covering.py": "where the suites run by default",
    "trainers/test_golden.py": "the loss of each rule, step by step",
    "trainers/test_memory.py": "what each rule keeps of the forward pass",
    "trainers/test_odd_nets.py": "nets and data out of the ordinary",
    "trainers/test_readme_conformance.py": "the README's tables of rules",
    "trainers/test_sequences.py": "rules on outputs of positions",
    "training/test_on_cuda.py": "every rule on a CUDA device",
    "training/test_other_tasks.py": "every rule on multi-label tasks and reconstructions",
    "training/test_regression.py": "every rule on values",
}

# Modules that are tested where they are used: a part of one function or command, which has no other use.
WITHIN = {
    "analysing/activities": "analysing/test_findings.py",
    "analysing/page": "cli/test_analyse.py",
    "analysing/plots": "cli/test_analyse.py",
    "analysing/reading": "cli/test_analyse.py",
    "analysing/writing": "cli/test_analyse.py",
    "benching/page": "cli/test_bench.py",
    "benching/plan": "cli/test_bench.py",
    "benching/rank": "benching/test_parallel.py",
    "cli/commands": "cli/test_main.py",
    "cli/environment": "cli/test_main.py",
    "cli/errors": "cli/test_run.py",
    "cli/listing": "cli/test_main.py",
    "cli/pages": "cli/test_options.py",
    "data/downloads": "data/test_vision.py",
    "energy/part": "energy/test_meter.py",
    "energy/selftest_page": "cli/test_check_meter.py",
    "errors": "cli/test_run.py",
    "exporting": "cli/test_export.py",
    "inputs": "nets/test_views.py",
    "nets/block": "nets/test_net_group.py",
    "nets/checks": "nets/test_mlp.py",
    "nets/classifiers": "nets/test_torchvision.py",
    "printing": "reporting/test_runs.py",
    "records/fields": "records/test_reading.py",
    "records/record": "records/test_reading.py",
    "reporting/plots": "reporting/test_writing.py",
    "reporting/quantities": "reporting/test_comparison.py",
    "reporting/settings": "reporting/test_comparison.py",
    "reporting/tables": "reporting/test_writing.py",
    "tasks/__init__": "tasks/test_base.py",
    "testing/energy": "energy/test_nvml.py",
    "testing/probes": "testing/test_conformance.py",
    "testing/toys": "testing/test_conformance.py",
    "trainers/backward": "trainers/test_backprop.py",
    "trainers/estimators/base": "trainers/estimators/test_likelihood_ratio.py",
    "trainers/estimators/noise": "trainers/estimators/test_likelihood_ratio.py",
    "trainers/feedback/base": "trainers/feedback/test_backward_path.py",
    "trainers/feedback/passes": "trainers/feedback/test_pepita.py",
    "trainers/feedback/paths": "trainers/feedback/test_backward_path.py",
    "trainers/local/base": "trainers/test_base.py",
    "trainers/paired/opposite": "trainers/paired/test_counter_current.py",
    "training/building": "test_defaults.py",
    "training/checks": "training/test_fit.py",
    "training/distributed/data": "training/distributed/test_launch.py",
    "training/experiment": "training/test_run_record.py",
    "training/interrupt": "training/test_resume.py",
    "training/loading": "test_trust.py",
    "training/runtime": "training/test_generator.py",
    "tuning/outcome": "tuning/test_trial_lost_energy.py",
    "tuning/recovery": "cli/test_tune.py",
}


def has_logic(path: Path) -> bool:
    """Return whether a module defines anything, and is no list of names, alias or command's entry."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


def module_of(test: str, modules: set[str]) -> str | None:
    """Return the module that a test file is of: the longest whose name its own begins with."""
    folder, _, name = test.rpartition("/")
    words = name.removeprefix("test_").removesuffix(".py").split("_")
    for end in range(len(words), 0, -1):
        module = "/".join(filter(None, [folder, "_".join(words[:end])]))
        if module in modules:
            return module
    return None


@pytest.fixture(scope="module")
def modules() -> set[str]:
    paths = [path for path in PACKAGE.rglob("*.py") if has_logic(path)]
    return {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in paths}


@pytest.fixture(scope="module")
def tests() -> set[str]:
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
    return {path.as_posix() for path in paths if path.parts[0] not in NO_MODULE}


def test_every_module_of_logic_has_its_test(modules, tests):
    own = {module_of(test, modules) for test in tests}
    untested = modules - own - WITHIN.keys()
    assert not untested, "each wants a tests/<package>/test_<module>.py, or a line in WITHIN"


def test_every_test_has_its_module(modules, tests):
    astray = {test for test in tests if module_of(test, modules) is None} - TOGETHER.keys()
    assert not astray, "each wants the name of a module of its package, or a line in TOGETHER"


def test_the_lists_hold_what_is_there_and_no_more(modules, tests):
    own = {module_of(test, modules) for test in tests}
    assert WITHIN.keys() <= modules - own, "a module that has its test needs no line"
    assert set(WITHIN.values()) | TOGETHER.keys() <= tests
    assert not any(module_of(test, modules) for test in TOGETHER)


def test_a_name_is_read_as_that_of_the_longest_module():
    modules = {"net", "nets/net", "nets/net_views", "tune"}
    assert module_of("nets/test_net_views_of_maps.py", modules) == "nets/net_views"
    assert module_of("nets/test_net_group.py", modules) == "nets/net"
    assert module_of("test_tuned.py", modules) is None
