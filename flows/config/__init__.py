"""The settings of a curation, read from one YAML file and validated."""
