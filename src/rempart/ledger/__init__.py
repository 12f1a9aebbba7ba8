"""The tamper-evident record of every exchange."""
