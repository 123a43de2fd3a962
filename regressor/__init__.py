"""Networks that estimate SMPL parameters, how they are trained, and their checkpoints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import load_checkpoint
    from .lift import load_lifter
    from .predict import load_predictor

__all__ = ["load_checkpoint", "load_lifter", "load_predictor"]

_MODULES = {"load_checkpoint": "checkpoints", "load_lifter": "lift", "load_predictor": "predict"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: torch takes seconds to load."""
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
