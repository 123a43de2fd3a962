"""Optimization in the loop: estimates are fitted, and the best fit known is the next target.

Kolotouros et al., "Learning to Reconstruct 3D Human Pose and Shape via Model-fitting in the Loop"
(ICCV 2019), Sec. 3.3. The network's estimate of a person, taken back to the picture as it is, is
where a fit to their 2D keypoints begins. The fit store keeps it if it is better than what is known,
and the best fit known, as the augmented picture shows it, is what the network learns from.

What differs, by default: the fit is a maximum a posteriori one (`fitting.map_fit`) for the true
camera of the full picture, and a fit counts the less the wider its posterior (docs/loop.md).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting import __version__
from fitting.body import Body, forward_kinematics
from fitting.camera import weak_to_transl
from fitting.files import InputError
from fitting.map_fit import LmConfig, MapSolver, Stage
from fitting.offline import Solver, make_solver
from fitting.people import People
from fitting.problem import BodyParams, FitProblem
from fitting.skeleton import KeypointSet
from fitting.smplify import AdamConfig
from fitting.table import FitsTable
from priors.gmm import MaxMixturePrior, load_pose_prior

from .augmentation import Turns
from .distributed import Group
from .heads import ImageEstimate
from .image_losses import where_people
from .image_people import ImagePeople
from .lift import LIFTER_FILE, load_lifter
from .store.fit_store import FitStore, create_store, open_store
from .store.fits import Origin, Rows, Rule, StoredFits
from .store.frames import turn_fits, turn_params
from .store.identity import DatasetIdentity, StoreIdentity, hash_fit_inputs
from .store.tables import export_fits
from .task import Batch

FOLDER = "fits"  # of a run
_LEAST_SCALE = 0.05  # of weak cameras: a body that covers some pixels of the crop
_ASSESSED = 4096  # static fits at once


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How fits are made and trusted.

    Attributes:
        solver: "lm", Levenberg-Marquardt on the MAP energy; "adam", SPIN's SMPLify; or "none", to
            learn from the fits that were there before.
        steps: at most, of a fit; of adam in each of its two stages, SPIN takes 100.
        rule: which fit is better: "map", of lower cost, or "spin", of lower mean 2D error.
        lifter: whether the energy knows what the bundled lifter makes of the keypoints, as that of
            `fit-cli fit` does; without it there are only the priors.
        largest_error: mean 2D error of a fit to learn from, as a share of the person's size.
        largest_beta: likewise of the shape, in standard deviations.
        half_std_mm: standard deviation of the joints at which a fit counts half as much as a sure
            one; none means that all count alike, as in SPIN.
    """

    solver: Literal["lm", "adam", "none"] = "lm"
    steps: int = 6
    rule: Rule = "map"
    lifter: bool = True
    largest_error: float = 0.1
    largest_beta: float = 4.0
    half_std_mm: float | None = 150.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        for name in ("largest_error", "largest_beta", "half_std_mm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class LoopPeople:
    """The people of a data set that is fitted in the loop.

    Attributes:
        name: of the data set in the store.
        people: N of them; keypoints of one set.
        static: whether their parameters are fits to begin with.
    """

    name: str
    people: ImagePeople
    static: bool


class _Fitter:
    """What fits need, on one device."""

    def __init__(
        self, body: Body, prior: MaxMixturePrior, keypoints: KeypointSet, config: LoopConfig
    ) -> None:
        self.body = body
        self._lifter = load_lifter(body) if config.lifter else None
        weigh = LmConfig(stages=(Stage(steps=1),))  # only asked what fits cost
        assessor = make_solver(body, prior, keypoints, weigh)
        assert isinstance(assessor, MapSolver)
        self.assess = assessor.assess
        self.solve: Solver | None = None
        if config.solver == "lm":
            fit = LmConfig(stages=(Stage(steps=config.steps),), uncertainty=False)
            self.solve = make_solver(body, prior, keypoints, fit)
        elif config.solver == "adam":
            self.solve = make_solver(body, prior, keypoints, AdamConfig(num_steps=config.steps))

    def informed(self, problem: FitProblem) -> FitProblem:
        """B people, with all that is known of them but the network's estimate."""
        return problem if self._lifter is None else self._lifter(problem)[0]


class FitLoop:
    """The fits of a run: made of estimates, kept in the store, given back as targets."""

    def __init__(
        self,
        config: LoopConfig,
        body: Body,
        keypoints: KeypointSet,
        datasets: Mapping[int, LoopPeople],
    ) -> None:
        """Of data sets by their number in batches; at least one.

        Args:
            config: how.
            body: that parameters belong to; a single-precision one on the CPU.
            keypoints: the set of the people's keypoints.
            datasets: to fit.
        """
        self.config, self.keypoints, self.datasets = config, keypoints, datasets
        self._body, self._prior = body, load_pose_prior()
        self._fitters: dict[torch.device, _Fitter] = {}
        self._store: FitStore | None = None

    @property
    def opened(self) -> FitStore:
        """The store of the run that has begun."""
        assert self._store is not None, "begin or resume a run first"
        return self._store

    # --- files ------------------------------------------------------------------------------------

    @property
    def identity(self) -> StoreIdentity:
        """What the store is for."""
        return StoreIdentity(
            body_sha256=self._body.sha256,
            datasets=tuple(_identify(dataset) for dataset in self.datasets.values()),
            energy=self._energy(),
            rule=self.config.rule,
        )

    def _energy(self) -> str:
        settings = asdict(LmConfig().weights)
        if self.config.lifter:
            settings["lifter"] = hashlib.sha256(LIFTER_FILE.read_bytes()).hexdigest()
        return json.dumps(settings, sort_keys=True)

    def begin(self, run: Path, group: Group) -> None:
        """Make the store of a new run, with the static fits; collective."""
        folder, identity = run / FOLDER, self.identity
        if group.is_first:
            contents = [
                (dataset.name, *self._static(dataset))
                for dataset in self.datasets.values()
                if dataset.static
            ]
            create_store(folder, identity, contents, overwrite=True)
        group.any(False)  # the others wait for it
        self._store = open_store(folder, identity)

    def resume(self, run: Path, step: int) -> None:
        """Open the store as it was at a checkpoint's step."""
        self._store = open_store(run / FOLDER, self.identity, step=step)

    def _static(self, dataset: LoopPeople) -> tuple[Rows, StoredFits]:
        """Rows and fits of a data set's own, with their costs under the loop's energy."""
        rows = np.flatnonzero(dataset.people.has_params)
        fitter = self._on(torch.device("cpu"))
        parts = []
        for start in range(0, len(rows), _ASSESSED):
            some = dataset.people.select(rows[start : start + _ASSESSED])
            problem = fitter.informed(_problem_of(some, self.keypoints))
            result = fitter.assess(problem, _params_of(some))
            parts.append(StoredFits.of_result(result, epoch=0, origin=Origin.STATIC))
        return rows, StoredFits.concatenate(parts)

    def labels(self, number: int, people: People) -> FitsTable:
        """The best fits known of a data set's people, as a fits table.

        Args:
            number: of the data set.
            people: all of the file that it comes from.

        Raises:
            InputError: the file changed since it was opened.
        """
        dataset = self.datasets[number]
        rows = dataset.people.file_row
        kept = people.select(rows[rows < len(people)])
        if not np.array_equal(kept.image, dataset.people.image):
            raise InputError(
                f"{dataset.name}: the people in the file changed while it was learned from; resume "
                "with the file as it was"
            )
        intrinsics = np.asarray(dataset.people.intrinsics, np.float32)
        return export_fits(self.opened, dataset.name, kept, intrinsics, {"version": __version__})

    # --- training ---------------------------------------------------------------------------------

    def targets(self, estimate: ImageEstimate, batch: Batch) -> Batch:
        """The batch with the best fits known, where there are, as what is known of the people.

        Args:
            estimate: of the B people, in their augmented pictures.
            batch: of `image_data`, with what it holds for the loop.
        """
        device = batch["row"].device
        fitter, turns = self._on(device), Turns(batch["angle"], batch["flip"])
        is_fitted = batch["row"] >= 0
        problem = FitProblem(
            keypoint_set=self.keypoints,
            keypoints_2d=batch["plain_keypoints_2d"],
            conf=batch["plain_conf"] * is_fitted[:, None],
            intrinsics=batch["plain_intrinsics"],
            image_size=batch["plain_size"],
        )
        offered = None
        if fitter.solve is not None:
            with torch.autocast(device.type, enabled=False):
                informed = fitter.informed(problem)
                start = turn_params(_estimated(estimate, batch), turns.inverse, fitter.body)
                result = fitter.assess(informed, fitter.solve(informed, [start]).params)
            epoch = batch["epoch"].cpu().numpy()
            offered = StoredFits.of_result(result, epoch=epoch, origin=Origin.LOOP)
        best = self._exchange(batch["dataset"].cpu().numpy(), batch["row"].cpu().numpy(), offered)
        weight = self._trust(best, problem.person_size.cpu().numpy())
        turned = turn_fits(best, turns.to(torch.device("cpu")), self._body)
        found = _as_truth(turned, weight, fitter.body, device)
        return {**batch, **{n: where_people(is_fitted, v, batch[n]) for n, v in found.items()}}

    def _exchange(
        self, dataset: NDArray[np.int64], rows: Rows, offered: StoredFits | None
    ) -> StoredFits:
        """Offer fits of B people to the store; the best ones known of them."""
        store = self.opened
        places = [np.flatnonzero(rows < 0)]
        parts = [StoredFits.nothing(len(places[0]))]
        for number, known in self.datasets.items():
            here = np.flatnonzero((dataset == number) & (rows >= 0))
            if len(here) == 0:
                continue
            if offered is not None:
                store.update(known.name, rows[here], offered.select(here))
            places.append(here)
            parts.append(store.read(known.name, rows[here]))
        return StoredFits.concatenate(parts).select(np.argsort(np.concatenate(places)))

    def _trust(self, fits: StoredFits, size: NDArray[np.floating]) -> NDArray[np.float32]:
        """(B,) how much fits count: 0 for implausible ones, and the more the surer they are."""
        config = self.config
        good = fits.is_known & (fits.error_px <= config.largest_error * size)
        good &= abs(fits.params[:, 72:82]).max(axis=1, initial=0) <= config.largest_beta
        if config.half_std_mm is None:
            return good.astype(np.float32)
        std = np.nan_to_num(fits.joint_std_mm.astype(np.float32).mean(axis=1), nan=np.inf)
        return (good / (1 + (std / config.half_std_mm) ** 2)).astype(np.float32)

    def _on(self, device: torch.device) -> _Fitter:
        if device not in self._fitters:
            body = copy.deepcopy(self._body).to(device)
            prior = copy.deepcopy(self._prior).to(device)
            self._fitters[device] = _Fitter(body, prior, self.keypoints, self.config)
        return self._fitters[device]


def _identify(dataset: LoopPeople) -> DatasetIdentity:
    people = dataset.people
    return DatasetIdentity(
        name=dataset.name,
        num_rows=len(people),
        sha256=hash_fit_inputs(people.image, people.keypoints_2d, people.conf, people.intrinsics),
    )


def _problem_of(people: ImagePeople, keypoints: KeypointSet) -> FitProblem:
    columns = (people.keypoints_2d, people.conf, people.intrinsics, people.image_size)
    at, conf, intrinsics, size = (torch.from_numpy(np.asarray(c, np.float32)) for c in columns)
    return FitProblem(
        keypoint_set=keypoints,
        keypoints_2d=at,
        conf=conf,
        intrinsics=intrinsics,
        image_size=size,
    )


def _params_of(people: ImagePeople) -> BodyParams:
    rotvec, betas, transl = (
        torch.from_numpy(np.asarray(column, np.float32))
        for column in (people.rotvec, people.betas, people.transl)
    )
    rotvec = rotvec.flatten(1)
    return BodyParams(
        global_orient=rotvec[:, :3], body_pose=rotvec[:, 3:], betas=betas, transl=transl
    )


def _estimated(estimate: ImageEstimate, batch: Batch) -> BodyParams:
    """What the network says, in the augmented picture's camera frame; fits teach it nothing."""
    rotations, betas, weak_cam = (part.detach().float() for part in estimate[:3])
    scale = weak_cam[:, :1].clamp(min=_LEAST_SCALE)
    weak_cam = torch.cat([scale, weak_cam[:, 1:]], dim=1)
    transl = weak_to_transl(weak_cam, batch["crop"], batch["intrinsics"])
    return BodyParams.from_rotations(rotations, betas, transl)


def _as_truth(
    fits: StoredFits, weight: NDArray[np.float32], body: Body, device: torch.device
) -> dict[str, Tensor]:
    """Entries of a batch, as `image_data` has them of people whose parameters are known."""
    params, known = fits.body_params.to(device), torch.from_numpy(weight).to(device)
    rotvec = params.pack(("global_orient", "body_pose")).unflatten(1, (24, 3))
    rotations = roma.rotvec_to_rotmat(rotvec)
    _, joints = forward_kinematics(rotations, body.rest_joints(params.betas))
    return {
        "pose_rotmat": rotations,
        "betas": params.betas,
        "transl": params.transl,
        "joints": joints - joints[:, :1],
        "has_params": known,
        "has_joints": known,
    }
