"""The method: which stage runs after which, from the source to the report."""
