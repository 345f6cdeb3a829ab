"""The steps of ingest: read records, settle ids, resolve labels, cut into parts. Texts of passages stay on disk."""
