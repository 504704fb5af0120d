"""Training the last layers of a network together with a new head, from a cached cut-point.

finetune    the verb: from a cache entry to a run
job         what it starts from: rows, the layers behind the cut, and where it is computed
settings    the recipe
network     the layers and a new head, in the form that the engine wants
scaling     frozen norms in the weights of the convolutions in front of them
loop        epochs over cached rows
checkpoint  a training between two epochs as one file
"""
