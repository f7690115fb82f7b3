"""What stands on a run's page, one file a section: read from the run folder, put into words, numbers and figures."""
