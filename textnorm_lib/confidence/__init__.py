"""TextNorm (section 4): equations 1 to 3, tuning without leaks, ablations."""
