"""Recipes that come with terselm, as YAML files."""
