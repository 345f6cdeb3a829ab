"""Evaluation: exact search, the measures of ir_measures, and files that other tools read."""
