"""The files a configuration names besides its source: where they may lie, and how each is copied into the store."""
