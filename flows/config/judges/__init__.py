"""Presets of judges, one file each; `flows.config.presets` reads them."""
