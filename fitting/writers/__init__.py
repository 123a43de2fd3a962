"""Write keypoints and fits in other programs' formats (docs/formats.md)."""

from .amass import write_amass
from .coco import coco_category, write_coco
from .eft import write_eft
from .humandata import write_humandata
from .meshes import check_body, write_meshes
from .spin import write_spin

__all__ = [
    "check_body",
    "coco_category",
    "write_amass",
    "write_coco",
    "write_eft",
    "write_humandata",
    "write_meshes",
    "write_spin",
]
