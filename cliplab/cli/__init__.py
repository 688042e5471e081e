"""The commands: `python -m cliplab COMMAND`. Only here are arguments read and lines printed."""
