"""The command `fraud-pipeline`: parses the command line and runs one command."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from pathlib import Path

from fraud.errors import FraudPipelineError
from fraud.text import plain

COMMANDS = {
    "init": "look at data and write a configuration that runs",
    "simulate": "write day folders of simulated transactions",
    "run": "run the pipeline once: validate, train, evaluate, push",
    "backtest": "evaluate past weeks as if the model had been live",
    "serve": "answer requests with the live model",
    "score": "score a file of transactions with the live version",
    "monitor": "look at production: data, drift, scores, performance",
    "status": "show the live model, its origin and the latest runs",
    "rollback": "make the weights of an earlier version live again",
    "ui": "show a root in the browser",
    "report": "write everything about a run as one page",
    "track": "send finished runs to MLflow",
    "lineage": "show what a version was made from, and what a day went into",
    "explain-decision": "say why a version is live, or why a run pushed nothing",
    "verify": "check that records, files and the push folder agree",
    "backup": "copy a root as of one moment, while servers use it",
    "restore": "make a backup the root again",
    "prune": "delete what neither the live model nor the last runs need",
    "state": "build or check what the server remembers of each entity",
    "config": "print the effective configuration",
    "schema": "print, compare or update the curated schema",
    "compile": "write the graph for an orchestrator",
    "node": "run one node of the compiled graph",
    "train-worker": "train with the Trainer of another machine",
    "watch": "the loop: observe, decide, train, push, verify, roll back",
    "decide": "do the steps of the loop before or after a training",
    "arrived": "tell whether a day's data is complete",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
      The exit code: 0 completed, 1 failure, 2 misuse or bad input, 3 stopped by the data gate,
      4 not yet (`arrived` only).
    """
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((argument for argument in argv if argument in COMMANDS), None)
    arguments = _parser(chosen).parse_args(argv)
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except FraudPipelineError as error:
        message = "\n".join(map(plain, str(error).split("\n")))
        print(f"fraud-pipeline: {message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fraud-pipeline: interrupted; run again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader is gone. Python flushes once more at exit and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"fraud-pipeline: {place}{error.strerror}; free some space and try again",
            file=sys.stderr,
        )
        return FraudPipelineError.exit_code


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all commands, of which only the chosen one is imported and has options."""
    parser = argparse.ArgumentParser(
        prog="fraud-pipeline",
        description="From a day of transactions to a blessed, pushed fraud model.",
        epilog="Start here: fraud-pipeline init --help",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module_name = name.replace("-", "_")
        if not (Path(__file__).parent / "commands" / f"{module_name}.py").exists():
            continue  # the image of the server has only what it uses
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name == chosen:
            module = importlib.import_module(f"fraud.pipeline.commands.{module_name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
