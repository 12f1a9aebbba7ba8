"""The state machine of one exchange: events in, commands out (pure)."""
