"""Wiring of the guards: what looks for near duplicates, shared texts and contamination."""
