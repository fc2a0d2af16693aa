"""NoProp passes the suite in its forms and with its embeddings; the README's table runs dt with unit vectors."""

import functools
from typing import Any

from localearn import NoProp
from tests.helpers.conformance import Suite
from tests.helpers.denoisers import images, rows

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


CLAIMS: dict[str, dict[str, Any]] = {
    "DiffusionLearned": {"lr": 0.03},
    "Flow": {"lr": 0.03, "steps": 400},
}
OF_IMAGES = (
    "DiscretePrototypes",
    "Diffusion",
)  # whose labels, or whose steps, are embedded otherwise than in the table


class Denoisers(Suite):
    kinds = ()
    tasks = ("classes",)
    draws_noise = True
    judged_by = "errors"
    steps, lr = 150, 0.01

    def make(self, net):
        return NoProp(net)


for _name, _options in FORMS.items():
    _own = {"noprop_mlp": functools.partial(rows, **_options)}
    if _name in OF_IMAGES:
        _own["noprop_cnn"] = functools.partial(images, **_options)
    globals()[f"Test{_name}"] = type(f"Test{_name}", (Denoisers,), {"own": _own, **CLAIMS.get(_name, {})})
