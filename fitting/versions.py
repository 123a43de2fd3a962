"""What results depend on."""

from __future__ import annotations

import platform

import numpy as np
import torch

from . import __version__


def find_versions() -> dict[str, str]:
    """Of this program and its main dependencies, for `run.json`."""
    return {
        "bodyloop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
