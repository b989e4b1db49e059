"""Stored forms of a matrix, one file each."""
