"""The fit store: the best fit known of each person of every data set (docs/loop.md).

`fit_store` is made of `columns` on the disk, an `overlay` of changes since the last save and a
`journal` of saves; `fits` says what is stored, `identity` for whom; `frames` takes fits to
augmented pictures and back, `tables` to fits tables and back.
"""
