"""The transparency log: tree, tiles, checkpoints, entries (pure), and the integrator that writes them."""
