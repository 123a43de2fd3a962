"""Bodies, cameras, keypoints, solvers, files and pictures: from 2D keypoints to SMPL parameters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import fit
    from .body import load_body
    from .fits import Fits
    from .problem import BodyParams, FitResult, Status
    from .table import read_fits as load_fits

__version__ = "0.1.0"
__all__ = [
    "BodyParams",
    "FitResult",
    "Fits",
    "Status",
    "__version__",
    "fit",
    "load_body",
    "load_fits",
]

# Imported when they are asked for: they need torch, which takes seconds to load.
_HOMES = {
    "BodyParams": ("problem", "BodyParams"),
    "FitResult": ("problem", "FitResult"),
    "Fits": ("fits", "Fits"),
    "Status": ("problem", "Status"),
    "fit": ("api", "fit"),
    "load_body": ("body", "load_body"),
    "load_fits": ("table", "read_fits"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
