"""The command line, the order of stages and gates, the run folder, and reports over a whole run."""

__version__ = "0.1.0"
