"""The losses that a model is trained with, one file each."""
