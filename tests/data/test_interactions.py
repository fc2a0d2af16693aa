"""Interactions of users with items: the last ones are held out, items become rows or codes, faults are named."""

import numpy as np
import pytest
import torch

from localearn.data import interactions, load
from localearn.data.base import Split
from localearn.errors import UserError
from localearn.tasks import MultiLabel, Regression

SPLITS: tuple[Split, ...] = ("train", "val", "test")

# ann: a b c d; bob: c a b; cy: a c; each user's in the order of time, which is not the file's.
LOG = """user,item,rating,timestamp
ann,b,4,2
ann,a,5,1
bob,c,1,10
cy,c,3,6
ann,c,2,3
bob,a,2,20
ann,d,1,4
cy,a,4,5
bob,b,3,30
"""


@pytest.fixture
def write(tmp_path):
    def written(content):
        (tmp_path / "x.csv").write_text(content)
        return tmp_path / "x.csv"

    return written


def batch(data, split):
    (found,) = data.batches(split, 10_000)
    return found


def test_pairs_hold_out_the_last_interactions_of_each_user_by_time(write):
    data = interactions(write(LOG))
    assert isinstance(data.task, Regression) and data.name == "interactions"
    assert data.sizes == {"train": 5, "val": 2, "test": 2}
    users, items = ["ann", "bob", "cy"], ["a", "b", "c"]  # d is in no training row: the last code
    assert data.categories == (3, 4) and data.feature_names == ("user", "item")
    found = {}
    for split in SPLITS:
        rows = batch(data, split)
        values = data.task.decode(rows.target).round().int()[:, 0].tolist()
        names = [(users[int(u)], (*items, "?")[int(i)]) for u, i in rows.x.tolist()]
        found[split] = dict(zip(names, values, strict=True))
    assert found == {
        "train": {("ann", "a"): 5, ("ann", "b"): 4, ("bob", "c"): 1, ("cy", "a"): 4, ("cy", "c"): 3},
        "val": {("ann", "c"): 2, ("bob", "a"): 2},
        "test": {("ann", "?"): 1, ("bob", "b"): 3},
    }
    assert "1 of 3 users have fewer than 3 interactions: all are training rows" in data.notes
    assert "1 of 4 held-out rows have an item that no training row has, code 3" in data.notes
    assert "a user's interactions are in order by column timestamp" in data.notes


def test_without_times_the_files_order_counts_and_dates_are_times(write):
    lines = LOG.splitlines()
    untimed = interactions(write("\n".join(line.rpartition(",")[0] for line in lines)))
    assert any("by the file's own order" in note for note in untimed.notes)
    assert untimed.task.decode(batch(untimed, "test").target).round()[:, 0].tolist() == [1, 3]  # pyright: ignore
    dated = [lines[0], *(f"{line.rpartition(',')[0]},2026-01-{int(line.rpartition(',')[2]):02}" for line in lines[1:])]
    assert interactions(write("\n".join(dated))).fingerprint() == interactions(write(LOG)).fingerprint()


def test_clicks_are_binary(write):
    random = np.random.RandomState(0)
    clicks = "".join(f"u{u},i{(u + n) % 5},{random.randint(2)}\n" for u in range(10) for n in range(9))
    data = interactions(write(f"user,item,click\n{clicks}"))
    assert data.task == MultiLabel(1) and set(batch(data, "train").target.flatten().tolist()) == {0, 1}
    assert data.target_names == ("click",)
    used = interactions(write(f"user,item,click\n{clicks}"), form="users")
    ones = clicks.count(",1\n")
    assert f"{ones} of 90 interactions have a click of 1 or more" in used.notes


def test_users_rows_are_what_they_had_and_the_target_what_came_next(write):
    data = interactions(write(LOG), form="users", k=2)
    assert data.task == MultiLabel(3, k=2) and data.feature_names == ("a", "b", "c")
    multi = {split: (batch(data, split).x.int().tolist(), batch(data, split).target.int().tolist()) for split in SPLITS}
    # ann: a -> b, (a b) -> c as validation, (a b c) -> d in no training row; bob: c -> a, (c a) -> b; cy: a -> c.
    assert multi["train"] == ([[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]])
    assert multi["val"] == ([[1, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]])
    assert multi["test"] == ([[1, 0, 1]], [[0, 1, 0]])
    assert "1 held-out interactions with an item that no training row has are left out" in data.notes


def test_prefixes_say_how_many_of_a_users_last_items_are_predicted(write):
    log = "user,item\n" + "".join(f"u{u},i{(u + 3 * n) % 11}\n" for u in range(5) for n in range(9))
    one, three = (interactions(write(log), form="users", prefixes=n) for n in (1, 3))
    assert one.sizes["train"] == 5 and three.sizes["train"] == 15
    assert batch(one, "train").x.sum(1).tolist() == [6] * 5
    assert batch(three, "train").x.sum(1).tolist() == [4, 5, 6] * 5
    assert torch.equal(batch(one, "test").x, batch(three, "test").x) and batch(one, "test").x.sum(1).tolist() == [8] * 5
    assert interactions(write(log), form="users", train_size=3).sizes["train"] == 3


def test_only_what_is_liked_counts_and_an_item_once(write):
    order = [[(u + 3 * n) % 10 for n in range(10)] for u in range(4)]
    log = "user,item,rating\n" + "".join(f"u{u},i{n},{5 if n % 2 else 1}\n" for u in range(4) for n in order[u])
    data = interactions(write(log), form="users", least=4)
    assert data.feature_names == ("i1", "i3", "i5", "i7", "i9")
    assert "20 of 40 interactions have a rating of 4 or more" in data.notes
    again = interactions(write(log + f"u0,i{order[0][1]},5\n"), form="users", least=4)
    assert "1 interactions with an item that comes again for the user are left out" in again.notes
    (x, y) = (part[0] for part in (batch(again, "test").x, batch(again, "test").target))
    assert again.feature_names is not None and again.feature_names[int(y.argmax())] == f"i{order[0][1]}"
    assert (x * y).sum() == 0, "what is predicted is not among what was had"


def test_the_same_file_gives_the_same_data_from_the_command_line(write, door, read):
    random = np.random.RandomState(0)
    log = "user,item,rating\n" + "".join(
        f"u{u},i{i},{1 + (u * i) % 5}\n" for u in range(12) for i in random.permutation(9)[:6]
    )
    path = write(log)
    tiny = ("dataset=interactions", f"dataset.path={path}", "net.widths=[6]", "epochs=2", "progress=false",
            "energy.enabled=false")  # fmt: skip
    ended = door(*tiny, "out=pairs")
    assert ended.status == 0, ended.err
    assert read.record("pairs")["net"] == "deepfm" and "test rmse " in ended.out
    assert read.record("pairs")["data_fingerprint"] == load("interactions", path=path).fingerprint()
    ended = door(*tiny, "dataset.form=users", "dataset.k=3", "net=mlp_2x256", "out=users")
    assert ended.status == 0, ended.err
    assert "test recall@3 " in ended.out and "test ndcg@3 " in ended.out
    assert read.record("users")["data_fingerprint"] == interactions(path, form="users", k=3).fingerprint()


FAULTS = {
    "no path": (None, {}, "interactions needs a path"),
    "user not there": (LOG, {"user": "userId"}, r"no column 'userId', which user names; did you mean 'user'"),
    "item not there": (LOG.replace("item", "movie"), {}, "no column 'item', which item names"),
    "no target": (LOG.replace("rating", "stars"), {}, "has no column rating or click.*or form=users"),
    "twice": (LOG, {"target": "user"}, "user, item, target and timestamp must be different columns"),
    "no user": (LOG.replace("cy,c", ",c"), {}, "column 'user' has no value in line 5; remove those rows"),
    "no rating": (LOG.replace("c,1,10", "c,,10"), {}, "column 'rating' has no value in line 4"),
    "word": (LOG.replace(",4,", ",good,").replace(",5,", ",bad,").replace(",1,", ",x,").replace(",3,", ",y,").replace(
        ",2,", ",z,"), {}, "line 2: the target 'rating' holds 'bad', a word; ratings are numbers"),
    "no time": (LOG.replace(",10\n", ",Monday\n").replace(",20\n", ",Tuesday\n"), {}, "line 4: 'Monday' in column"),
    "same rating": (LOG.replace("5", "4").replace(",2,", ",4,").replace(",1,", ",4,").replace(",3,", ",4,"), {},
                    "'rating' is 4 in every training row, so there is nothing to predict; form=users"),
    "vanishing rating": ("user,item,rating\n" + "".join(f"u{n // 4},i{n % 4},{n}e-320\n" for n in range(16)), {},
                         "'rating' is .* in every training row, so there is nothing to predict"),
    "few": ("user,item,rating\na,x,1\nb,y,2\nc,z,3\n", {}, "no user has 3 interactions, so none can be held out"),
    "few for users": ("user,item\n" + "".join(f"u{u},i{n}\n" for u in range(3) for n in (u, 3 - u, 5)),
                      {"form": "users"}, "no user has 4 interactions, 2 to train on and 2 that are held out"),
    "nothing liked": (LOG, {"form": "users", "least": 9}, "no rating is 9 or more; give a smaller least"),
    "least of pairs": (LOG, {"least": 3}, "least says which items of form=users count"),
    "form": (LOG, {"form": "user"}, r"form must be pairs or users, not 'user'; did you mean 'users'\?"),
    "prefixes": (LOG, {"form": "users", "prefixes": 0}, "prefixes is 0; it must be 1 or more"),
    "train size": (LOG, {"train_size": 6}, "train_size is 6; it must lie between 1 and 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_in_a_few_lines(write, case):
    content, options, message = FAULTS[case]
    with pytest.raises(UserError, match=message) as caught:
        interactions(None if content is None else write(content), **options)
    assert str(caught.value).count("\n") < 3 and len(str(caught.value)) < 500
