"""Recipes and the methods they are made of."""
