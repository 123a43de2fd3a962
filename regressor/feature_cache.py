"""What a frozen encoder sees of each person, computed once.

Its answers do not change while the head is trained. With pictures as they are and mirrored, and no
other augmentation, there are two for each person, and a step of training costs only the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .image_sources import FolderSource, Pictured

_CHUNK = 64  # people encoded at once

Encode = Callable[[Tensor], Tensor]
"""(B, 3, S, S) crops -> (B, C, h, w) features on the CPU."""


CutPictures = Callable[[Pictured, bool], tuple[Tensor, NDArray[np.bool_]]]
"""People and whether they are mirrored -> (B, 3, S, S) normalised crops, (B,) which were read."""


class FeatureCache:
    """Features of all people of some sources, in memory: 4.6 kB a person for `blazepose`."""

    def __init__(self, sources: Sequence[FolderSource], cut: CutPictures, encode: Encode) -> None:
        """Compute them."""
        ends = np.cumsum([len(source.people) for source in sources])
        self._starts = np.concatenate([[0], ends[:-1]])  # of the sources, one after another
        parts = [[p for s in sources for p in _encoded(s, cut, encode, m)] for m in (False, True)]
        # (2, N, C, h, w) float16: of pictures as they are, and mirrored
        self._features = torch.stack([torch.cat([f for f, _ in part]) for part in parts])
        self._is_read = np.concatenate([is_read for _, is_read in parts[0]])

    def read(
        self, dataset: NDArray[np.integer], rows: NDArray[np.integer], flip: NDArray[np.bool_]
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """Of B people: (B, C, h, w) float32, and (B,) whether their pictures could be read.

        Args:
            dataset: (B,) number of their source.
            rows: (B,) of it.
            flip: (B,) whether they are mirrored.
        """
        places = self._starts[dataset] + rows
        return self._features[flip.astype(int), places].float(), self._is_read[places]


def _encoded(
    source: FolderSource, cut: CutPictures, encode: Encode, mirrored: bool
) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
    for start in range(0, len(source.people), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(source.people)))
        images, is_read = cut(source.at(rows, np.zeros_like(rows)), mirrored)
        yield encode(images).half(), is_read
