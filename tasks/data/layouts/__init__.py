"""What an input object holds: single values, and which field of it holds what."""
