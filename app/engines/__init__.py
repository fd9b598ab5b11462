"""The engines, which turn inputs into predictions, and the reading of their model files."""
