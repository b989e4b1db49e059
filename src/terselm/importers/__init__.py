"""Models trained elsewhere, one importer a file."""
