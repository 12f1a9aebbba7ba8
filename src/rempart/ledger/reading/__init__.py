"""Whoever looks at the ledger: one exchange, the usage of a day, all of it verified."""
