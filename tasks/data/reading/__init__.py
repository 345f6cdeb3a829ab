"""Reading input: files, the objects in them, and the rows, corpora and labels that these describe."""
