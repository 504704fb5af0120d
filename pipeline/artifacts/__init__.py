"""A run as a file that needs neither cache nor training code, checked before it is called done.

product      what is exported, and what a format is
description  what is said of a model in its metadata
onnx         ONNX
pt2          torch.export
tensors      safetensors and JSON, which `load_model` opens
check        a written artifact against cached logits
card         the model card beside it
export       the verb
"""
