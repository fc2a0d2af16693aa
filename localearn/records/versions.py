"""The versions of what a run's numbers depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "localearn",
    "torch",
    "numpy",
    "torchvision",
    "torch-geometric",
    "codecarbon",
    "nvidia-ml-py",
    "hydra-core",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages, those that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
