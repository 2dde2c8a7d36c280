"""The report: the course's questions answered from a run's files, as HTML and Markdown."""
