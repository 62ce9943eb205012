"""Room: the world model. Encoder, projector, predictor; saved as safetensors and JSON."""
