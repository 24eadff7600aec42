"""Export: checkpoint in; ONNX file and TensorRT engine out."""
