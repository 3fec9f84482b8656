"""How a slide of 100,000 px runs on 1 to 1,000 workers: measured task times, and a simulation on the engine's wavefront."""
