"""A reproducible study of *Confidence-aware Reward Optimization for Fine-tuning Text-to-Image Models*.

Importing the package imports nothing else: each notebook and each training run takes the modules that it needs.
"""

__version__ = "0.1.0"
