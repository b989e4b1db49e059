"""The language model, its output layer and its file."""
