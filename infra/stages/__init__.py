"""Stages: their declaration, the keys of their parts, the runner, and the computation of one part."""
