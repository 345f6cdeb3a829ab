"""Mining hard negatives (paper section 1.1): encode, search, and pick from the pool."""
