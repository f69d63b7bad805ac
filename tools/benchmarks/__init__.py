"""Benchmarks as scripts (``tools/analysis_tools/benchmark.py``): times, memory, operations.

Nothing here is used by training, testing or labelling. Call chain of a subcommand::

    cli.main -> Subject.build (the model), fold.* (generated images)
             -> episode / evaluation / training / ... .run(subject, options) -> results
             -> report.finish: tables, JSON, comparison with an earlier file
"""
