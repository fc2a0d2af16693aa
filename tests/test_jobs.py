import pytest

from localearn.errors import UserError
from localearn.jobs import Job, run_job

OVERRIDES = [
    "algo=mono_forward", "dataset=digits", "dataset.train_size=100", "net.widths=[8]", "epochs=1", "progress=false",
    "energy.enabled=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "run"
    assert run_job(Job(folder, OVERRIDES)) == 0
    return folder


def test_a_finished_job_is_kept(done, capsys):
    assert run_job(Job(done, OVERRIDES)) == 0
    assert "reused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "name"),
    [("epochs=2", "epochs"), ("net.widths=[9]", "net"), ("optim=sgd", "optim"), ("algo.prediction=ff", "algo")],
)
def test_a_folder_with_another_configuration_is_refused(done, override, name):
    with pytest.raises(UserError, match=f"another .*{name}"):
        run_job(Job(done, [*OVERRIDES, override]))


def test_a_run_whose_schedule_has_moved_since_is_reused(tmp_path, capsys):
    overrides = [*OVERRIDES, "schedule=cool_down", f"out={tmp_path / 'run'}"]
    assert run_job(Job(tmp_path / "run", overrides)) == 0
    file = tmp_path / "run" / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("localearn.training.optimization.CoolDown", "localearn.training.schedules.CoolDown"))
    assert file.read_text() != text

    assert run_job(Job(tmp_path / "run", overrides)) == 0
    assert "reused" in capsys.readouterr().out


def test_an_option_that_came_after_the_run_is_no_difference_unless_it_is_asked_for(done, capsys):
    text = done.joinpath("config.yaml").read_text()
    older = text.replace("  input_projection: false\n", "").replace("diagnose: none\n", "")
    assert older.count("\n") == text.count("\n") - 2
    done.joinpath("config.yaml").write_text(older)

    assert run_job(Job(done, OVERRIDES)) == 0
    assert "reused" in capsys.readouterr().out
    with pytest.raises(UserError, match="another algo"):
        run_job(Job(done, [*OVERRIDES, "algo.input_projection=true"]))
