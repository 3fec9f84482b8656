"""How good a slide is: fidelity, memorisation, seams, consistency, and the report of them."""
