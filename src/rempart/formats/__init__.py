"""formats: strict readers of model files (pure)."""
