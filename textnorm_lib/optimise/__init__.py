"""What optimises against a reward (section 5): best of n, RWR, DDPO, their runs as steps, what tuned models do."""
