"""Who is better: comparisons, verdicts, the paper's claims; people at the labelling interfaces."""
