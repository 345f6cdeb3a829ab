"""Bringing texts and vectors of passages to the query parts that read them: one shuffle through the store."""
