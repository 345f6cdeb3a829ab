"""Search by the inner products of vectors: exactly, or in lists."""
