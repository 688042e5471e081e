"""How the shipped weights were made: `python -m cliplab train <stem>`."""
