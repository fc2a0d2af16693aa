"""The plan of a search, as its command line describes it."""

from pathlib import Path

import pytest

from localearn.cli.tune import parse
from localearn.errors import UserError
from localearn.tuning.storage import close_storage, open_storage


def test_a_search_has_defaults_named_after_what_it_searches():
    plan = parse(["algo=cafo", "dataset=digits", "epochs=3"])
    assert plan.study == "cafo-digits-mlp_2x256"
    assert plan.out == Path("tuning/cafo-digits-mlp_2x256")
    assert plan.storage == "sqlite:///tuning/cafo-digits-mlp_2x256/study.db"
    assert (plan.trials, plan.sampler, plan.pruner, plan.objective) == (20, "tpe", "median", "")
    assert plan.overrides == ("algo=cafo", "dataset=digits", "epochs=3")


def test_own_options_and_ranges_are_kept_apart_from_overrides():
    plan = parse(
        ["trials=7", "sampler=qmc", "pruner=none", "tune.space.lr=null", "+tune.space.net.dropout={low:0,high:1}"]
    )
    assert (plan.trials, plan.sampler, plan.pruner) == (7, "qmc", "none")
    assert plan.ranges == ("tune.space.lr=null", "tune.space.net.dropout={low:0,high:1}")
    assert plan.overrides == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trials"], "cannot read 'trials'"),
        (["trials=0"], "trials takes whole numbers"),
        (["trials=2.5"], "trials takes whole numbers"),
        (["heartbeat_s=0"], "heartbeat_s takes"),
        (["aside=maybe"], "aside is true or false"),
        (["sampler=tpa"], "sampler is tpe.*not 'tpa'; did you mean 'tpe'"),
        (["pruner=medium"], "pruner is median.*not 'medium'; did you mean 'median'"),
        (["objective=energy"], "no objective"),
        (["resume=x"], "resume= is set by the search"),
        (["algo=mono"], "no algo 'mono'"),
        (["objective=accuracy_energy", "sampler=cmaes"], "cmaes searches for one objective"),
        (["objective=accuracy_energy", "pruner=median"], "one objective alone"),
    ],
)
def test_what_does_not_go_is_refused_in_a_line(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(arguments)


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", "sqlite:///", "sqlite:///x?mode=memory"])
def test_a_storage_that_ends_with_the_process_is_refused(url):
    with pytest.raises(UserError, match="ends with the process"):
        parse(["algo=mono_forward", f"storage={url}"])


@pytest.mark.parametrize("out", ["a#b?c", "a${seed}", "50%", "{x}"])
def test_the_database_lies_in_the_searchs_folder_whatever_it_is_called(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = parse(["algo=mono_forward", f"out={out}"])
    close_storage(open_storage(plan.storage, 15, lambda study, trial: None))
    assert [path.name for path in tmp_path.iterdir()] == [out]
    assert (tmp_path / out / "study.db").is_file()
