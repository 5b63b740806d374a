"""What optimises against a reward (section 5): best of n, RWR, DDPO; LoRA, denoising, checkpoints, outcomes."""
