"""The report of an evaluation: ``report.json``, and pages of HTML that load nothing from elsewhere."""
