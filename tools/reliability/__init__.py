"""What docs/reliability.md promises, done to it: kills, full disks, flipped bits, malformed files,
two writers, hostile headers. Run by tools/analysis_tools/reliability.py."""
