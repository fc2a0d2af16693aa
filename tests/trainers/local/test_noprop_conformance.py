"""NoProp passes the suite in its forms and with its embeddings; the README's table runs dt with unit vectors."""

import functools
from typing import Any

from localearn import NoProp
from localearn.testing import RuleConformance
from tests.trainers.denoisers import images, rows

FORMS: dict[str, dict[str, Any]] = {
    "DiscreteLearned": {"embedding": "learned", "dim": 3},
    "DiscretePrototypes": {"embedding": "prototype"},
    "Diffusion": {"form": "ct"},
    "DiffusionLearned": {"form": "ct", "embedding": "learned", "dim": 3},
    "DiffusionPrototypes": {"form": "ct", "embedding": "prototype"},
    "Flow": {"form": "fm"},
    "FlowLearned": {"form": "fm", "embedding": "learned", "dim": 3},
    "FlowPrototypes": {"form": "fm", "embedding": "prototype"},
}


class Denoisers(RuleConformance):
    kinds = ()
    tasks = ("classes",)
    draws_noise = True
    judged_by = "errors"
    steps = 150

    def make(self, net):
        return NoProp(net)


for _name, _options in FORMS.items():
    _own = {"noprop_mlp": functools.partial(rows, **_options), "noprop_cnn": functools.partial(images, **_options)}
    globals()[f"Test{_name}"] = type(f"Test{_name}", (Denoisers,), {"own": _own})
