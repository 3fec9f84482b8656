"""What is compared: slides, folders of tiles and datasets, and random crops from their tissue."""
