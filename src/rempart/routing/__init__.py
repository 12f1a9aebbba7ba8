"""Which engine answers an exchange, and who waits for one (pure: the time and what engines told are arguments)."""
