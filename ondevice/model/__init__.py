"""The decoders (gpt2, llama), their fused head loss, parameter counts, safetensors files and Hugging Face names.

Everything from `ondevice.infer` upwards may import the submodules directly; `shape` and `counts` work without torch,
and importing this package imports nothing, so that plans and status stay quick. It must not know data sets,
optimizers, run directories or devices: a model here is a function of a `ModelShape`, a seed and tensors.
"""
