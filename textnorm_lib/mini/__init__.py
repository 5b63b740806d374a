"""The mini world: scenes of drawn sprites, and the models trained on them."""
