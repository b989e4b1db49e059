"""Experiment files, their runs, and the tables that their results make."""
