"""The witness: cosigns checkpoints of logs that it has seen grow and never shrink or fork."""
