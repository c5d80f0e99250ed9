"""The commands of `fraud-pipeline`, one module each: `add_arguments(parser)` and `run(arguments)`.

Modules import nothing heavy at their top, so that `--help` and a wrong option are answered at once.
"""
