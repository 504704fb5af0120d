"""How a cut network is run on batches of uint8 images.

engine      the interface, dtypes, and what keeps float32 exact
reference   the untouched module: what a plain PyTorch loop computes
eager       the same with BatchNorm folded, channels last, in any dtype
folding     BatchNorm folded into the convolution in front of it
graph       the network as one graph with a fixed batch shape
compiled    that graph through torch.compile
openvino    that graph through OpenVINO
registry    names, what is installed, what takes which dtype
"""
