"""The pipeline that picks: budget in, model out."""
