"""Reading of YAML settings, and the traps of YAML that people step into."""
