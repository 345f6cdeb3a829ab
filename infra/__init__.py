"""The machine: settings, artifact store, stage runner, engines. Knows nothing of queries or judges."""
