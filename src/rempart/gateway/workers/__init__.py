"""Several processes that answer on one address and share one ledger (ADR 0004)."""
