"""Rows in and out: readers, ingest, treatments and export; the demo's corpus."""
