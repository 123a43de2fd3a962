"""Encoders: from pictures of people to feature maps.

`make_encoder` builds one by name; `ENCODERS` lists the names.
"""

from .base import Encoder, load_pretrained
from .registry import ENCODERS, make_encoder

__all__ = ["ENCODERS", "Encoder", "load_pretrained", "make_encoder"]
