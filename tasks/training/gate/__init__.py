"""The statistics of the promotion gate: differences over queries and seeds, the level of each night, the checks."""
