"""Models on this machine: references resolved, weights fetched, verified, converted and quantised."""
