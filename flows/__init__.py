"""The wiring: what runs after what, on which resources, and the command line."""
