"""The functions behind the command line, one module for each first word."""
