"""Removing from the store: garbage collection and purge."""
