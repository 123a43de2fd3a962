"""Fits with all that belongs to them: what `fitting.fit` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .body import Body, BodyOutput, pose_body
from .meshes import write_mesh
from .offline import PeopleFit
from .people import People
from .problem import PARAMETERS, FitResult, status_words
from .table import FitsTable, write_fits

_CHUNK = 256  # people posed at a time: a mesh takes some megabytes on its way


@dataclass(frozen=True, kw_only=True)
class Fits(FitResult):
    """Fits of N people that know their bodies and keypoints.

    Attributes:
        body: that was fitted.
        people: the keypoints and pictures given.
        init: (N,) str, where each fit began, as in the fits table.
    """

    body: Body
    people: People
    init: np.ndarray

    @staticmethod
    def of(made: PeopleFit, people: People, body: Body) -> Fits:
        """Of what was made of N people."""
        columns = {f.name: getattr(made.result, f.name) for f in fields(FitResult)}
        return Fits(**columns, body=body, people=people, init=made.init)

    @property
    def has_fit(self) -> Tensor:
        """(N,) bool, False for people without keypoints and for fits that diverged."""
        return self.params.pack(PARAMETERS).isfinite().all(dim=1)

    def select(self, rows: Tensor) -> Fits:
        """The people at `rows` (indices or a mask)."""
        index = torch.as_tensor(rows).cpu().numpy()
        some = super().select(rows)
        return replace(some, people=self.people.select(index), init=self.init[index])

    def vertices(self) -> Tensor:
        """(N, V, 3) metres, skins of the posed bodies in the camera frame; NaN without a fit."""
        return self._posed(lambda posed: posed.vertices)

    def joints(self) -> Tensor:
        """(N, 24, 3) metres, SMPL's joints in the camera frame; NaN without a fit."""
        return self._posed(lambda posed: posed.joints)

    @torch.no_grad()
    def _posed(self, part: Callable[[BodyOutput], Tensor]) -> Tensor:
        like, transl = self.body.v_template, self.params.transl
        parts = [
            part(pose_body(self.body, self.params.select(rows).to(like.device))).to(transl.device)
            for rows in torch.arange(len(self), device=transl.device).split(_CHUNK)
        ]
        return torch.cat(parts)

    def numpy(self) -> dict[str, np.ndarray]:
        """What was found, as arrays in the units and the frame of `FitResult`.

        Returns:
            `global_orient` (N, 3), `body_pose` (N, 69), `betas` (N, 10), `transl` (N, 3),
            `intrinsics` (N, 3, 3), `reprojection_error` (N, P), `cost_initial`, `cost_final` and
            `num_steps` (N,), `joint_std_mm` (N, 24), and `status` (N,) in words.
        """
        tensors = {name: getattr(self.params, name) for name in PARAMETERS}
        for name in ("intrinsics", "reprojection_error", "cost_initial", "cost_final",
                     "num_steps", "joint_std_mm"):  # fmt: skip
            tensors[name] = getattr(self, name)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        return arrays | {"status": status_words(self.status)}

    def table(self) -> FitsTable:
        """The fits table (docs/conventions.md) of these fits."""
        from .run import make_table  # which knows detectors and files that fits need not

        made = PeopleFit(result=self.to("cpu"), seconds={}, init=self.init, batch_size=len(self))
        metadata = {"body_sha256": self.body.sha256, "version": __version__}
        return make_table(self.people, made, init=self.init, metadata=metadata)

    def save(self, path: Path | str) -> Path:
        """Write the fits table as one Parquet file, atomically; `fitting.load_fits` reads it.

        Args:
            path: `.parquet` to write or replace; its folder must exist.

        Returns:
            The path.

        Raises:
            OutputError: it cannot be written.
        """
        write_fits(path, self.table())
        return Path(path)

    def save_mesh(self, path: Path | str, row: int = 0) -> Path:
        """Write one person's mesh, y up; the suffix chooses the format: .obj, .ply or .glb.

        Args:
            path: to write or replace; its folder must exist.
            row: of the person.

        Returns:
            The path.

        Raises:
            IndexError: there is no such row.
            ValueError: the person has no fit, or the suffix is unknown.
            OutputError: the file cannot be written.
        """
        one = self.select(torch.tensor([row]))
        if not one.has_fit.item():
            raise ValueError(f"row {row} has no fit ({one.numpy()['status'][0]}), so no mesh")
        return write_mesh(path, one.vertices()[0].cpu().numpy(), self.body.faces.cpu().numpy())
