"""Networks that estimate SMPL parameters; they arrive with the training core."""
