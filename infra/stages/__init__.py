"""A stage as data, the keys of its parts, the runner that cuts and reuses them, and what computes one part."""
