"""What goes wrong between ranks is told in a line, ends them all, and loses no checkpoint."""

import datetime
import json
import signal
import socket
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from localearn.errors import UserError
from localearn.training.distributed import launch

SMALL = ["dataset=digits", "dataset.train_size=200", "net.widths=[12,10]", "epochs=4", "batch_size=20",
         "energy.enabled=false", "progress=false", "out=run"]  # fmt: skip

# A rule that is Mono-Forward but for what happens to rank 1 in its 25th step, in the third epoch.
MORTAL = """
import os, signal
from localearn import MonoForward
from localearn.errors import UserError

class Mortal(MonoForward):
    def run_block(self, k, h, batch):
        self.taken = getattr(self, "taken", 0) + (k == self.net.depth - 1)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if self.taken == 25 and os.environ.get("RANK") == "1" and attempt == "0":
            HAPPENS
        return super().run_block(k, h, batch)
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"
WRONG = "raise UserError('this rank has no room')"


@pytest.fixture
def mortal(tmp_path):
    """Return the overrides of the rule that meets with this."""

    def happens(what):
        (tmp_path / "mortal.py").write_text(MORTAL.replace("HAPPENS", what))
        return ["algo._target_=mortal.Mortal", *SMALL]

    return happens


def module(*arguments):
    return ["-m", "localearn.run", *arguments]


def test_a_rank_that_dies_ends_the_run_whose_checkpoint_goes_on_alone(mortal, launch, tmp_path, door, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    ended = launch(2, *module(*mortal(KILLED), "parallel=data"), cwd=tmp_path)
    assert ended.returncode
    told = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    assert len(told) == 1
    assert told[0].startswith("error: rank 1 ended or did not answer") and "resume=" in told[0]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert door("resume=run", "parallel=none", "trust=mortal.Mortal").status == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["ranks"], record["seams"][0]["epoch"]) == ("completed", 1, 2)
    assert door(*[*mortal(KILLED)[:-1], "out=whole"]).status == 0
    whole, seamed = (load_file(tmp_path / name / "net.safetensors") for name in ("whole", "run"))
    assert all(torch.allclose(seamed[name], whole[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize("parallel", ["data", "layers"])
def test_ranks_that_are_started_anew_go_on_from_the_checkpoint(mortal, launch, tmp_path, parallel):
    asked = [*mortal(KILLED), f"parallel={parallel}"]
    ended = launch(2, *module(*asked), options=["--max-restarts=1"], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["passes"], len(record["seams"])) == ("completed", 4, 1)


def test_a_rank_that_hangs_is_named(mortal, ranks_by_hand):
    first, second = ranks_by_hand(*mortal(STOPPED), "parallel=layers", "rank_timeout_s=5")
    _, told = first.communicate(timeout=120)
    assert first.returncode == 2
    assert "error: rank 1 ended or did not answer within 5 s, and rank 0 waited for it" in told
    assert "Traceback" not in told
    assert second.poll() is None


def test_an_error_of_one_rank_is_told_by_it(mortal, ranks_by_hand):
    first, second = ranks_by_hand(*mortal(WRONG), "parallel=data")
    told = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (2, 2)
    assert "error on rank 1: this rank has no room" in told[1]
    assert "error: rank 1 ended" in told[0]


SILENT = """
import torch
from localearn import MonoForward

class Silent(MonoForward):
    def gradients(self, batch):
        loss = self.block_loss(0, self.net.block(0)(self.net.stem(batch.x)), batch)
        loss.backward()
        return {"loss": loss.detach()}
"""


def test_a_rule_that_learns_otherwise_than_block_by_block_is_told_and_nobody_waits(ranks_by_hand, tmp_path):
    (tmp_path / "silent.py").write_text(SILENT)
    first, second = ranks_by_hand("algo._target_=silent.Silent", *SMALL, "parallel=layers")
    told = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert "error: Silent overrides gradients(), so how a block learns alone is unknown" in told[0]
    assert (first.returncode, second.returncode) == (2, 2)


def test_what_one_rank_lacks_is_told_once_and_nobody_waits(ranks_by_hand, tmp_path):
    """A file that is on the first rank's machine alone."""
    draw = np.random.default_rng(0)
    x_train, x_test, y = draw.random((40, 6), np.float32), draw.random((40, 6), np.float32), np.arange(40) % 2
    np.savez(tmp_path / "here.npz", x_train=x_train, y_train=y, x_test=x_test, y_test=y)
    asked = ["dataset=npz", "epochs=1", "energy.enabled=false", "progress=false", "out=run", "parallel=data"]
    first, second = ranks_by_hand(*asked, rank_0=["dataset.path=here.npz"], rank_1=["dataset.path=gone.npz"])
    told = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert told[0].startswith("error: rank 1: ") and "gone.npz" in told[0] and told[1] == ""
    assert (first.returncode, second.returncode) == (2, 2)


def test_ranks_with_other_options_are_refused(ranks_by_hand, tmp_path):
    first, second = ranks_by_hand(*SMALL, "parallel=data", rank_1=["seed=3"])
    told = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert told == ["error: rank 1 has seed 3, and rank 0 has 0; they must be equal\n", ""]
    assert (first.returncode, second.returncode) == (2, 2)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_signal_ends_all_ranks_when_the_epoch_is_over(ranks_by_hand, tmp_path):
    ranks = ranks_by_hand(*SMALL, "epochs=100000", "parallel=data")
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert time.monotonic() < deadline and all(rank.poll() is None for rank in ranks)
        time.sleep(0.1)
    ranks[1].send_signal(signal.SIGTERM)
    told = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [143, 143]
    assert "interrupted by signal 15" in told[0] and told[1] == ""
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "interrupted" and record["passes"] == record["epochs"] > 0


def test_a_port_in_use_is_told(tiny, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        ended = tiny("parallel=data", "rank_timeout_s=2")
    assert ended.status == 2
    assert "that port is in use" in ended.err


def test_ranks_without_a_way_to_share_are_refused_and_sharing_without_ranks(tiny, monkeypatch):
    assert "parallel=data needs ranks: torchrun" in tiny("parallel=data").err
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "2 ranks were started, each of which would train the same net" in tiny().err
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert "give out=DIR" in tiny("parallel=data").err


def greeted(*identities):
    """Return what rank 0 tells ranks that say this of themselves; None for one that does not come."""
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    for rank, identity in enumerate(identities):
        if identity is not None:
            store.set(f"identity/{rank}", json.dumps(identity))
    return launch._mismatch(store, len(identities), datetime.timedelta(seconds=0.2))


def test_ranks_that_do_not_come_or_are_otherwise_are_named():
    alike = {"torch": "2.9", "seed": 0}
    assert greeted(alike, alike, alike) == ""
    assert greeted(alike, None, alike, None) == "ranks 1, 3 did not join within 0.2 s; 4 ranks were started"
    assert "rank 2 has torch 2.8, and rank 0 has 2.9" in greeted(alike, alike, {"torch": "2.8", "seed": 0})


def test_a_comparison_runs_each_run_on_one_process(tmp_path):
    from localearn.cli import compare

    with pytest.raises(UserError, match="parallel=data is for a single run"):
        compare.main(["algos=[backprop]", "warm_up=false", "epochs=1", "parallel=data", f"out={tmp_path}"])


STOPS = """
import localearn

class Stops(localearn.Callback):
    def step_ended(self, context):
        if context.rank == 1 and context.position.epoch == 1:
            context.stop("rank 1 has enough")
"""


def test_a_callback_of_one_rank_stops_all_at_the_end_of_the_epoch(ranks_by_hand, tmp_path):
    (tmp_path / "stops.py").write_text(STOPS)
    ranks = ranks_by_hand(*SMALL, "callbacks=[{_target_:stops.Stops}]", "parallel=data")
    told = [process.communicate(timeout=120)[1] for process in ranks]
    assert "stopped: rank 1 has enough" in told[0]
    assert [process.returncode for process in ranks] == [3, 3]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["error"], record["epochs"]) == ("stopped", "rank 1 has enough", 2)
