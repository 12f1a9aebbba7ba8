"""Rempart: private language models, served and recorded on one's own hardware."""

__version__ = "0.1.0"
