"""Bodies, cameras, keypoints, solvers, files and pictures: from 2D keypoints to SMPL parameters."""

__version__ = "0.1.0"
