"""Rerankers as judges: they read a query and a passage together, and give P(relevant)."""
