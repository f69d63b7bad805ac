"""Bringing downloaded datasets into the form that training and testing read: ``tools/prepare.py``.

One module per dataset, each with ``add_arguments(parser)`` and ``prepare(args) -> str`` (a summary
in words). ``prepare`` finds what was downloaded, states a :class:`.recipe.Recipe` and words what
came of it; the module also has the function that makes the files of one item. Their common steps:

- :mod:`.recipe` begins or goes on, runs the jobs, writes lists and description;
- :mod:`.jobs` runs them in parallel, keeps what is complete, reports all that failed;
- :mod:`.sources` reads downloads; :mod:`.instances` annotations in COCO's format;
- :mod:`.tiles` cuts large pictures, :mod:`.class_masks` writes masks by class.

``voc``, ``coco`` and ``shapes`` keep layouts of their own, and ``folder`` checks everything before
it writes anything: these take the steps one by one.
"""
