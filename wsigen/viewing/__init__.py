"""Looking at slides, runs and cohorts in a browser: the page, and the server that shows it on this machine alone."""
