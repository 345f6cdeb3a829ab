"""A curation in the store: recorded, made ready, looked up."""
