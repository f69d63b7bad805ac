"""Benchmarks as scripts (``tools/analysis_tools/benchmark.py``): times, memory, operations.

Nothing here is used by training, testing or labelling. Call chain of a subcommand::

    cli.main -> episode / evaluation / training / ... .run(options) -> results
                  Subject.build (the model), pictures (a generated fold), running (episodes)
             -> .tables(results), JSON, comparison with an earlier file (report)
"""
