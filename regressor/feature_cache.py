"""What a frozen encoder sees of each person, computed once.

Its answers do not change while the head is trained, and so a step of training costs only the head.
Of each picture there are some views: as it is, and augmented in ways that are drawn once; and each
of them mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .augmentation import Augmentations
from .image_sources import FolderSource, Pictured

_CHUNK = 64  # people encoded at once

Encode = Callable[[Tensor], Tensor]
"""(B, 3, S, S) crops -> (B, C, h, w) features on the CPU."""


CutPictures = Callable[[Pictured, Augmentations], tuple[Tensor, NDArray[np.bool_]]]
"""People and their augmentations -> (B, 3, S, S) normalised crops, (B,) which were read."""


class FeatureCache:
    """Features of all people of some sources, in memory: 4.6 kB a person and view for `blazepose`.

    Attributes:
        num_views: of each picture.
    """

    def __init__(
        self,
        sources: Sequence[FolderSource],
        views: Augmentations,
        cut: CutPictures,
        encode: Encode,
    ) -> None:
        """Compute them.

        Args:
            sources: of N people in all.
            views: (V * N,) augmentations, of all people's first views, then of their second ones.
            cut: how they look.
            encode: what is seen.
        """
        self._views = views
        self._starts = np.cumsum([0, *(len(source.people) for source in sources)])
        self.num_views = len(views.flip) // self._starts[-1]
        parts = [list(self._encoded(sources, cut, encode, flip)) for flip in (False, True)]
        # (2, V * N, C, h, w) float16: of views as they are, and mirrored
        self._features = torch.stack([torch.cat([f for f, _ in part]) for part in parts])
        self._is_read = np.concatenate([is_read for _, is_read in parts[0]])

    def _encoded(
        self, sources: Sequence[FolderSource], cut: CutPictures, encode: Encode, flip: bool
    ) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        for view in range(self.num_views):
            for dataset, source in enumerate(sources):
                for start in range(0, len(source.people), _CHUNK):
                    rows = np.arange(start, min(start + _CHUNK, len(source.people)))
                    drawn = self._views.select(self._find(dataset, rows, view))
                    drawn = replace(drawn, flip=np.full(len(rows), flip))
                    images, is_read = cut(source.at(rows, np.zeros_like(rows)), drawn)
                    yield encode(images).half(), is_read

    def read(
        self,
        dataset: NDArray[np.integer],
        rows: NDArray[np.integer],
        view: NDArray[np.integer],
        flip: NDArray[np.bool_],
    ) -> tuple[Tensor, NDArray[np.bool_], Augmentations]:
        """Of B people: (B, C, h, w) float32, (B,) whether pictures could be read, augmentations.

        Args:
            dataset: (B,) number of their source.
            rows: (B,) of it.
            view: (B,) below `num_views`.
            flip: (B,) whether they are mirrored.
        """
        places = self._find(dataset, rows, view)
        features = self._features[flip.astype(int), places].float()
        return features, self._is_read[places], replace(self._views.select(places), flip=flip)

    def _find(
        self,
        dataset: NDArray[np.integer] | int,
        rows: NDArray[np.integer],
        view: NDArray[np.integer] | int,
    ) -> NDArray[np.integer]:
        """(B,) places of people's views."""
        return view * self._starts[-1] + self._starts[dataset] + rows
