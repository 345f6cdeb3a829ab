"""What the promotion gate measures beyond the curation: several seeds, the released models, the nights before."""
