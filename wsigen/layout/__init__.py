"""Which class is where on the slide: GeoJSON, label images, one class, the procedural sampler; read box by box."""
