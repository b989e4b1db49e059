"""Corpora, vocabularies, the token cache, batches."""
