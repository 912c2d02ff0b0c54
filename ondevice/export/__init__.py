"""ONNX files of our decoders: the wire format, the graphs, the export folder and its verification.

Commands and studies may use it; importing it imports neither torch nor onnxruntime. It must not know runs, datasets or
how weights were learned: it gets a shape, tensors by name, and lineage as plain values to pass on.
"""
