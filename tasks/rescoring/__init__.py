"""Scoring the pool of mined candidates with a reranker."""
