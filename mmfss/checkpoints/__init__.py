"""What is written into checkpoints, and what is checked before one is used."""
