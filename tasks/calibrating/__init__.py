"""Calibrations in use: P(relevant) of every pair, a new calibration of a curation, and how it is shown."""
