"""Images: sampled from a diffusion model, and read from whatever a caller has."""
