"""`python -m cliplab classify SOURCE`: photos sorted by labels, judged where the truth is known."""

from cliplab.classify.arguments import add_arguments, add_parser
from cliplab.classify.command import run
from cliplab.classify.labels import split_labels

__all__ = ["add_arguments", "add_parser", "run", "split_labels"]
