"""Keys and bodies that end before their log: erasure, hold, expiry, and the certificates of these (ADR 0003)."""
