"""Motion-capture poses on SMPL's tree, and which subjects are for what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_ASSETS = Path(__file__).with_name("assets")
SPLIT_FILE = _ASSETS / "mocap_split.json"
POSES_FILE = _ASSETS / "mocap_poses.npz"

_LEFT_RIGHT = np.array(
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
)


@dataclass(frozen=True, kw_only=True)
class MocapPoses:
    """N poses.

    Attributes:
        rotvec: (N, 24, 3) axis-angle, radians; y up, the zero pose is the T-pose facing +z.
        subject: (N,) str, "" where unknown.
        action: (N,) str, "" where unknown.
        sequence: (N,) int, index of the recording.
    """

    rotvec: np.ndarray
    subject: np.ndarray
    action: np.ndarray
    sequence: np.ndarray

    def __len__(self) -> int:
        return len(self.rotvec)

    def select(self, rows: np.ndarray) -> MocapPoses:
        """The poses at `rows` (indices or a mask)."""
        return MocapPoses(
            rotvec=self.rotvec[rows],
            subject=self.subject[rows],
            action=self.action[rows],
            sequence=self.sequence[rows],
        )

    @property
    def weights(self) -> np.ndarray:
        """(N,) how often to draw each: in all, a recording counts with the root of its length.

        Neighbours in time are alike, so a long recording tells less than many short ones.
        """
        _, of, length = np.unique(self.sequence, return_inverse=True, return_counts=True)
        return length[of] ** -0.5

    def of_split(self, split: str) -> MocapPoses:
        """The poses of the subjects in `split` ("train", "validation" or "test").

        Subjects that the split file does not name are for training.
        """
        subjects, rows = np.unique(self.subject, return_inverse=True)
        return self.select(np.array([split_of(s) == split for s in subjects], dtype=bool)[rows])


def load_splits() -> dict[str, list[str]]:
    """Subjects of "validation" and "test"; all others are "train"."""
    return json.loads(SPLIT_FILE.read_text(encoding="utf-8"))["subjects"]


def split_of(subject: str) -> str:
    """The split that a subject belongs to."""
    return next((name for name, subjects in load_splits().items() if subject in subjects), "train")


def load_mocap(path: Path = POSES_FILE) -> MocapPoses:
    """Read poses from an `.npz`; those that ship with the package unless told otherwise.

    Either `smpl_rotvec (N, 24, 3)` with sequences by `seq_start`, `seq_length`, `seq_subject` and
    `seq_action`, or AMASS's `poses (N, >= 66)`, whose finger rotations are left out.

    Raises:
        ValueError: the file is missing or holds neither; the message names it.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in _MOCAP_KEYS}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file of poses") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error})") from error
    if "smpl_rotvec" in arrays:
        return _from_sequences(arrays)
    if "poses" in arrays and arrays["poses"].ndim == 2 and arrays["poses"].shape[1] >= 66:
        return _from_amass(arrays["poses"])
    raise ValueError(f"{path}: expected smpl_rotvec (N, 24, 3) or poses (N, >= 66), found neither")


_MOCAP_KEYS = ("smpl_rotvec", "seq_start", "seq_length", "seq_subject", "seq_action", "poses")


def _from_sequences(arrays: dict[str, np.ndarray]) -> MocapPoses:
    sequence = np.repeat(np.arange(len(arrays["seq_start"])), arrays["seq_length"])
    within = np.arange(len(sequence)) - np.repeat(
        np.cumsum(arrays["seq_length"]) - arrays["seq_length"], arrays["seq_length"]
    )
    rows = arrays["seq_start"][sequence] + within
    return MocapPoses(
        rotvec=arrays["smpl_rotvec"][rows],
        subject=arrays["seq_subject"][sequence],
        action=arrays["seq_action"][sequence],
        sequence=sequence,
    )


def _from_amass(poses: np.ndarray) -> MocapPoses:
    rotvec = np.zeros((len(poses), 24, 3))
    rotvec[:, :22] = poses[:, :66].reshape(-1, 22, 3)
    unknown = np.full(len(poses), "")
    return MocapPoses(
        rotvec=rotvec, subject=unknown, action=unknown, sequence=np.zeros(len(poses), int)
    )


def mirror_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """Poses of the mirrored person (x -> -x) for rotvec (..., 24, 3): swap sides, flip y and z."""
    return rotvec[..., _LEFT_RIGHT, :] * np.array([1.0, -1.0, -1.0])
