"""Bodies, cameras, keypoints, solvers, files and pictures: from 2D keypoints to SMPL parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import fit

__version__ = "0.1.0"
__all__ = ["__version__", "fit"]


def __getattr__(name: str) -> Any:
    """Import `fit` when it is asked for: it needs torch, which takes seconds to load."""
    if name == "fit":
        from .api import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
