"""Features of frozen encoders, kept: what is stored where, under which key, for which images."""
