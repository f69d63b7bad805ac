"""Bringing downloaded datasets into the form that training and testing read: ``tools/prepare.py``.

One module per dataset, each with ``add_arguments(parser)`` and ``prepare(args) -> str`` (a summary
in words); :mod:`.jobs` runs the work in parallel and keeps what is complete.
"""
