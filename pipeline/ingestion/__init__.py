"""From files of transactions to examples with features. See docs/ingestion.md.

`source` finds the files and checks them before a run, `files` reads them, `values` checks what is
in them, `stages` computes features and writes examples on Beam.
"""
