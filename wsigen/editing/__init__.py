"""Places of a slide made anew: windows around them are generated, and their pixels put into its file."""
