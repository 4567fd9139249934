"""localai: DeepSeek-R1 on the user's own device."""

__version__ = "0.1.0"
