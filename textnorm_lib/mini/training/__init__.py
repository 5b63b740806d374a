"""How the mini world's models are trained: notebook A1 alone imports it."""
