"""Models for other places than a disk, one exporter a file."""
