"""Every rule on every kind of net and of task on a CUDA device: the weights of a CPU, with a graph and without."""

import contextlib
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import localearn
from localearn import cli
from localearn.benching.plan import known_rules
from localearn.cli import bench
from localearn.errors import Unsupported
from localearn.testing.toys import KINDS, TASKS, toy
from localearn.training.building import rule_class

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
SGD = functools.partial(torch.optim.SGD, lr=0.01)
TINY = ["algo=mono_forward", "dataset=digits", "net.widths=[12,10]", "device=cuda", "progress=false"]
DRAWING = ("forward_forward", "forward_gradient", "likelihood_ratio")  # which a CUDA device draws otherwise than a CPU
RUNS = [
    ["dataset=digits", "net=cnn", "net.channels=[4,6]"],
    ["dataset=digits", "net=resnet20", "net.widths=[4,6]", "net.blocks=1"],
    ["dataset=karate", "net=gcn"],
    ["dataset=text", "net=transformer", "net.layers=2", "net.width=16", "net.heads=2", "dataset.path=text.txt"],
    ["dataset=diabetes"],
    ["dataset=breast_cancer"],
    ["dataset=photo"],
]


@pytest.fixture(autouse=True)
def full_precision():
    """Have convolutions multiply in float32, as a CPU does."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def built(name, kind):
    """Return a rule on the toy of a kind, that task, and options of fit; raise Unsupported where it refuses the net."""
    rule, task = rule_class(cli.compose([f"algo={name}"])[0]["algo"]), toy(kind)
    torch.manual_seed(0)
    net = task.net()
    shape = rule.input_shape(net, task.data)
    net = net if shape == net.input_shape else task.net(shape)
    rule.supports(net, task.data)
    torch.manual_seed(0)
    shared = {"epochs": 4, "batch_size": 16, "optim": SGD, "energy": False, "progress": False}
    return rule(net), task, shared


def served():
    """Return each rule with each kind that it serves, which the conformance suite holds to the README's tables."""
    if not torch.cuda.is_available():
        return [("mono_forward", "mlp")]
    pairs = []
    for pair in itertools.product(known_rules(), [*KINDS, *list(TASKS)[1:]]):
        with contextlib.suppress(Unsupported):
            built(*pair)
            pairs.append(pair)
    return pairs


SERVED = served()


def trained(name, kind, device, capture="off", **options):
    """Return the weights of a rule that was trained on the toy of a kind, and its record."""
    rule, task, shared = built(name, kind)
    record = rule.fit(task.data, device=device, capture=capture, **shared | options)
    assert record.status == "completed"
    return {key: value.cpu() for key, value in rule.state_dict().items()}, record


def assert_alike(one, other, atol):
    assert one.keys() == other.keys()
    far = {
        key: f"{(one[key].double() - other[key].double()).abs().max().item():.2g}"
        for key in one
        if not torch.allclose(one[key].double(), other[key].double(), rtol=1e-3, atol=atol)
    }
    assert not far, f"these differ: {far}"


@pytest.mark.parametrize(("name", "kind"), SERVED)
def test_a_graph_ends_in_the_weights_without_one(name, kind):
    plain, _ = trained(name, kind, "cuda")
    replayed, record = trained(name, kind, "cuda", "graph")
    assert_alike(plain, replayed, 1e-4)
    assert record.capture == "graph" or name == "cafo"  # which is solved, and has no update


@pytest.mark.parametrize(("name", "kind"), [pair for pair in SERVED if pair[0] not in DRAWING])
def test_a_cuda_device_ends_in_the_weights_of_a_cpu(name, kind):
    whole: Any = {"batch_size": 1024, "epochs": 8}  # for the order of rows is drawn on the device
    on_cpu, _ = trained(name, kind, "cpu", **whole)
    on_cuda, _ = trained(name, kind, "cuda", **whole)
    assert_alike(on_cpu, on_cuda, 1e-4)


@pytest.mark.parametrize("options", RUNS, ids=" ".join)
@pytest.mark.parametrize("name", known_rules())
def test_a_run_on_a_cuda_device_is_complete(name, options, door, read):
    Path("text.txt").write_text("What is here is there, and what is there is here.\n" * 400)
    ended = door(f"algo={name}", *options, "epochs=1", "device=cuda", "progress=false", "out=run")
    if ended.status == 2 and "use " in ended.err:  # refused, with what would work
        return
    assert ended.status == 0, ended.err
    record = read.record("run")
    assert record["status"] == "completed"
    assert record["energy"]["label"] == "measured"
    net = localearn.load_net("run")
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["backprop", "mono_forward", "direct_feedback_alignment", "forward_forward"])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "gcn", "transformer", "recurrent", "vit"])
def test_bfloat16_trains_and_keeps_weights_in_float32(kind, name):
    rule, task, shared = built(name, kind)
    record = rule.fit(task.data, device="cuda", precision="bf16", **shared)
    assert record.status == "completed"
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in rule.parameters())


@pytest.mark.parametrize("capture", ["off", "graph"])
@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_resumed_run_ends_in_the_weights_of_a_whole_one(optim, capture, door, read):
    asked = [*TINY, f"optim={optim}", "schedule=constant", f"capture={capture}"]
    assert door(*asked, "epochs=4", "out=whole").status == 0
    assert door(*asked, "epochs=2", "out=part").status == 0
    ended = door("resume=part", "epochs=4")
    assert ended.status == 0, ended.err
    assert (read.record("whole")["capture"], read.record("part")["capture"]) == (capture, capture)
    whole, part = (localearn.load_net(name).state_dict() for name in ("whole", "part"))
    assert_alike(whole, part, 1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler's own look
@pytest.mark.parametrize("name", ["mono_forward", "backprop"])
def test_compiled_blocks_end_in_the_weights_of_plain_ones(name):
    plain, _ = trained(name, "mlp", "cuda")
    compiled, record = trained(name, "mlp", "cuda", "compile")
    assert record.capture == "compile"
    assert_alike(plain, compiled, 1e-4)


def test_the_bench_runs_on_a_cuda_device(tmp_path, monkeypatch):
    small = ["width=16", "batch=32", "depth=2", "input=[6]", "turns=1", "turn_s=0.05", "device=cuda", "capture=graph"]
    monkeypatch.chdir(tmp_path)
    assert bench.main([*small, "out=bench"]) == 0
