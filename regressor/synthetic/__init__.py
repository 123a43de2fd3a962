"""People whose truth is known, and drawings of them (docs/synth.md).

`people` makes bodies before cameras, `detection` what a detector makes of their keypoints,
`rendering` pictures, in clothes of the `wardrobe` and before `surroundings`; `rendered_set` makes
folders of those.
"""
