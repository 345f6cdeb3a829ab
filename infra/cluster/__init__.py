"""Ray's clusters: starting and joining one, what its nodes run, how weights reach them, how processes end."""
