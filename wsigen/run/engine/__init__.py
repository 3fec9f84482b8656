"""Which task may run when, where it runs, and what it needs: no pixels, no torch."""
