"""`python -m cliplab classify SOURCE`: photos sorted by labels, judged where the truth is known."""

from cliplab.classification.labels import split_labels
from cliplab.cli.classify.arguments import add_arguments, add_parser
from cliplab.cli.classify.command import run

__all__ = ["add_arguments", "add_parser", "run", "split_labels"]
