"""Search over encrypted bodies (ADR 0003, "Search"): an index that shows its size and nothing else."""
