"""Pose2Mesh (Choi et al., ECCV 2020): from 2D keypoints to a mesh (docs/pose2mesh.md).

`network` is `pose_net` and then `mesh_net`, whose graphs are of `mesh_graph`; `task` trains it, and
`official` reads the checkpoints that its authors published.
"""
