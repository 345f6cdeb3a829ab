"""Tables that need not fit in memory, in a scratch folder."""
