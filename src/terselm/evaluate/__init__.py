"""Perplexity, cost, agreement with a reference, prediction."""
