"""Guards of the training data: near duplicates, rows that must not share a batch, contamination by evaluation sets."""
