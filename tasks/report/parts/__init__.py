"""What each query part counts for the report, and how the counts of all parts are added up."""
