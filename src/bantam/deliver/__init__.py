"""What leaves a finished run: predictions, grades, exports, the package, the report, the page."""
