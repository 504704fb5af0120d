"""Frozen networks: names, weights, the cut, preprocess, engines.

preprocess    decode geometry and normalisation as one value; imports neither torch nor torchvision
family        what a family of networks can be asked
vision, timm_family, custom     torchvision's, timm's, the user's own
registry      all of them by name
weights       state dicts from files, and the digest of what was loaded
backbone      from a name to a frozen network, cut at a layer
cut           the network without its last layers
taps, pooling the output of any layer as rows
engines       how a cut network is run on batches of uint8 images
"""
