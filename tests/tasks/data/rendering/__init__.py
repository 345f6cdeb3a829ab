"""Tests of tasks/data/rendering."""
