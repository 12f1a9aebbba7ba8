"""Copies of a ledger that verify by themselves: replicas, backups, and what begins from them."""
