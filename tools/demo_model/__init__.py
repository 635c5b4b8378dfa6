"""Makes the embedded demo model: corpus, training, and the model folder that is committed."""
