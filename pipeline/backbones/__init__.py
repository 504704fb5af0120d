"""Frozen networks: names, weights, the cut, preprocess, engines.

preprocess  decode geometry and normalisation as one value; imports neither torch nor torchvision
registry    the names, what is known about them without building them
weights     state dicts from a name, a file, or seed 0
cut         the network without its last layer
engines     how a cut network is run on batches of uint8 images
"""
