"""Retraining (paper section 4): instances, training, evaluation, comparison, pruning, promotion."""
