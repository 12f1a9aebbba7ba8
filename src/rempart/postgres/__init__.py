"""One connection to PostgreSQL, for those who keep something there."""
