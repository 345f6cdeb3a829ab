"""The store: write-once objects, tables with manifests, the row ledger, records, releases, collection and purge."""
