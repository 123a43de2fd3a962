"""Bodies, cameras, keypoints, solvers, files and pictures: from 2D keypoints to SMPL parameters."""
