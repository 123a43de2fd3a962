"""OpenCV, imported in one place so that a broken installation is explained in one place."""

from __future__ import annotations

from types import ModuleType


def import_cv2() -> ModuleType:
    """OpenCV's Python module, version 5 or later.

    Raises:
        ImportError: OpenCV is missing, cannot load its system libraries (on servers often libGL,
            which only the windowed build needs) or is too old to draw triangles.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"OpenCV cannot be imported ({error}); install the build that needs no display: "
            "pip install 'opencv-python-headless>=5.0'"
        ) from error
    if not hasattr(cv2, "triangleRasterize"):
        raise ImportError(
            f"OpenCV {getattr(cv2, '__version__', '?')} lacks triangleRasterize; "
            "upgrade it: pip install --upgrade 'opencv-python-headless>=5.0'"
        )
    return cv2
