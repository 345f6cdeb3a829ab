"""Recipes of training that are ready to use (flows.config.training_recipes)."""
