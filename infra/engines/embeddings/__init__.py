"""Vectors by an OpenAI-compatible endpoint: what is sent, what comes back, and who asks."""
