"""The report of a curation: figures, plots, examples, the page."""
