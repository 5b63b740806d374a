"""Statistics of rewards and ratings: metrics, intervals, agreement, calibration, rank correlations."""
