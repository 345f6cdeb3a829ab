"""Writing training sets: one module for each format, and the verdicts of the judges as files."""
