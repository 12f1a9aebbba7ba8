"""Bytes become values and back: OpenAI requests, answers and chunks, server-sent events (pure)."""
