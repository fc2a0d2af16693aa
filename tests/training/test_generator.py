"""Runs beside runs: torch's global generators are each run's own, and the caller's afterwards."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import localearn
from localearn.training import fit
from localearn.training.generator import give_way, own_random_numbers


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def in_threads(*works: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def drawer(drawn: list[tuple[str, float]], name: str, seed: int, meet: threading.Barrier) -> Callable[[], None]:
    def work():
        meet.wait()
        with own_random_numbers():
            torch.default_generator.manual_seed(seed)
            for _ in range(4):
                drawn.append((name, torch.rand(()).item()))
                while len({name for name, _ in drawn}) == 1 and meet.parties == 2:
                    give_way()  # until the other has come
                give_way()

    return work


def test_each_draws_its_own_numbers_in_turns_and_the_callers_state_is_left():
    before = torch.get_rng_state()
    alone: list[tuple[str, float]] = []
    for name, seed in (("a", 1), ("b", 2)):
        drawer(alone, name, seed, threading.Barrier(1))()
    drawn: list[tuple[str, float]] = []
    meet = threading.Barrier(2)
    in_threads(drawer(drawn, "a", 1, meet), drawer(drawn, "b", 2, meet))
    assert sorted(drawn) == sorted(alone)
    assert "".join(name for name, _ in drawn).count("ab") >= 2
    assert torch.equal(torch.get_rng_state(), before)


def test_inside_another_it_is_put_back_and_the_turn_is_kept():
    with own_random_numbers():
        torch.default_generator.manual_seed(3)
        outer = torch.get_rng_state()
        with own_random_numbers():
            torch.rand(5)
            give_way()
        assert torch.equal(torch.get_rng_state(), outer)


def test_an_error_gives_the_turn_back():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), own_random_numbers():
        torch.rand(5)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)

    def work():
        with own_random_numbers():
            pass

    in_threads(work)


RULES = {
    "forward_gradient": localearn.ForwardGradient,
    "likelihood_ratio": localearn.LikelihoodRatio,
    "mono_forward": localearn.MonoForward,
}


def trainer_for(data: localearn.Data, rule: str, seed: int) -> localearn.Trainer:
    torch.manual_seed(seed)
    return RULES[rule](localearn.MLP(data.input_shape, data.classes, widths=[12, 10], dropout=0.3))


def test_fits_in_threads_give_what_each_gives_alone(digits):
    runs = [(rule, seed) for seed, rule in enumerate(RULES)]
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8}
    alone = [trainer_for(digits, *run) for run in runs]
    for seed, trainer in enumerate(alone):
        fit(trainer, digits, seed=seed, **options)
    together = [trainer_for(digits, *run) for run in runs]
    before = torch.get_rng_state()
    meet = threading.Barrier(len(runs))

    def work(trainer: localearn.Trainer, seed: int) -> None:
        meet.wait()
        fit(trainer, digits, seed=seed, **options)

    in_threads(*(lambda t=trainer, s=seed: work(t, s) for seed, trainer in enumerate(together)))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_a_fit_leaves_torchs_generator_as_it_was(digits, rule):
    trainer = trainer_for(digits, rule, 0)
    before = torch.get_rng_state()
    fit(trainer, digits, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
